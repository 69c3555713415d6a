//! The commands that speak to a tenant's hub.

mod agents;
mod changes;
mod dead_letters;
mod description;
mod exchange;
mod found;
mod mailbox;
mod payload;
mod profile;
mod program;
mod receive;
mod refusal;
mod reply;
mod session;
mod shared;
mod target;
mod transfer;
mod unread;
mod watch;

use self::{refusal::refused, target::Target};
use crate::output::{Failure, Output};

/// The commands that speak to a tenant's hub.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Exchanges an API key, and keeps it with the hub's address as a context.
    Login(session::Login),
    /// Lists the kept contexts, or chooses the current one.
    Contexts(session::Contexts),
    /// Shows whom the current context speaks for.
    Whoami(session::Whoami),
    /// Lists the agents of the tenant.
    Agents(agents::Agents),
    /// Sends a message to an agent, a group or all.
    Send(exchange::Send),
    /// Sends a query to an agent and waits for its reply.
    Request(exchange::Request),
    /// Answers requests to this agent: with a text, a file, or what a command prints.
    ///
    /// One after another, until it is stopped. Other messages are not acknowledged: they come again, and go to the dead letters after ten
    /// deliveries.
    Reply(reply::Reply),
    /// Takes messages as they come: prints and acknowledges them.
    Receive(receive::Receive),
    /// Shows what is unread in the mailbox, and takes none of it.
    Unread(unread::Unread),
    /// Shows messages as they come, or the changes of a context type, and takes nothing: what is shown stays unread.
    Watch(watch::Watch),
    /// Lists, shows, replays and drops messages that nobody took.
    DeadLetters(dead_letters::DeadLetters),
    /// Shares a payload of at most 1 MiB as a context.
    Share(exchange::Share),
    /// Lists, shows, updates or deletes shared contexts. `acb watch --contexts` follows their changes.
    Shared(shared::Shared),
    /// Streams a file of at most 100 MiB into a context; goes on by itself where the connection breaks.
    Push(transfer::Push),
    /// Streams the payload of a context into a file, and verifies it.
    Pull(transfer::Pull),
}

/// Runs one.
pub(crate) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Login(login) => login.run(output).await,
        Command::Contexts(contexts) => contexts.run(output),
        Command::Whoami(whoami) => whoami.run(output).await,
        Command::Agents(agents) => agents.run(output).await,
        Command::Send(send) => send.run(output).await,
        Command::Request(request) => request.run(output).await,
        Command::Reply(reply) => reply.run(output).await,
        Command::Receive(receive) => receive.run(output).await,
        Command::Unread(unread) => unread.run(output).await,
        Command::Watch(watch) => watch.run(output).await,
        Command::DeadLetters(letters) => letters.run(output).await,
        Command::Share(share) => share.run(output).await,
        Command::Shared(shared) => shared.run(output).await,
        Command::Push(push) => push.run(output).await,
        Command::Pull(pull) => pull.run(output).await,
    }
}
