/** Says hello to an agent, or waits for somebody who does. Usage: hello.ts [AGENT] */

import { connect } from "@acb/sdk";

const agent = await connect();
const [to] = process.argv.slice(2);

if (to === undefined) {
  console.log(`${agent.identity.agent} waits for a message`);
  for await (const message of agent.messages()) {
    console.log(`${message.from} says ${message.text()}`);
    message.ack();
    break;
  }
} else {
  const { messageId } = await agent.send({ to, topic: "greeting", text: "hello" });
  console.log(`sent ${messageId}`);
}
await agent.close();
