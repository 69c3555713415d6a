// A real OpenID Connect issuer for tests, over TLS on a free port of this machine: issuer.mjs CERTIFICATE KEY
//
// Its clients: `people` (no secret; logins at another device) and `machine` with the secret `machine-secret`. What a person would do on its pages, a test
// does by GET /test/approve?user_code=…&account=…, and GET /test/rotate has it sign with a new key.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

import { Provider } from 'oidc-provider';

const [certificate, key] = process.argv.slice(2);
const AUDIENCE = 'urn:acb:test';

let serial = 0;
function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  serial += 1;
  return { ...privateKey.export({ format: 'jwk' }), kid: `key-${serial}`, use: 'sig', alg: 'RS256' };
}

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key), minVersion: 'TLSv1.3' });
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `https://localhost:${server.address().port}`;

const accounts = { ada: { groups: ['leads'] }, bob: { groups: [] } };
const stored = new Map();

// What is kept outlives a change of keys: the adapter is this map.
class Kept {
  constructor(kind) { this.kind = kind; }
  at(id) { return `${this.kind}:${id}`; }
  async upsert(id, payload) { stored.set(this.at(id), { ...payload, id }); }
  async find(id) { return stored.get(this.at(id)); }
  async findByUid(uid) { return [...stored.values()].find((payload) => payload.uid === uid); }
  async findByUserCode(code) { return [...stored.values()].find((payload) => payload.userCode === code); }
  async consume(id) { stored.get(this.at(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { stored.delete(this.at(id)); }
  async revokeByGrantId() {}
}

const cookies = [randomBytes(16).toString('hex')];
function provider(keys) {
  return new Provider(issuer, {
    adapter: Kept,
    clients: [
      {
        client_id: 'people', token_endpoint_auth_method: 'none', response_types: [], redirect_uris: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      },
      {
        client_id: 'machine', client_secret: 'machine-secret', response_types: [], redirect_uris: [], grant_types: ['client_credentials'],
      },
    ],
    jwks: { keys },
    cookies: { keys: cookies },
    claims: { openid: ['sub', 'groups'] },
    conformIdTokenClaims: false,
    findAccount: async (_, id) => accounts[id] && { accountId: id, claims: async () => ({ sub: id, ...accounts[id] }) },
    issueRefreshToken: async (_, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    ttl: { IdToken: 600, AccessToken: 600, ClientCredentials: 600, DeviceCode: 600, RefreshToken: 3600, Grant: 3600 },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: () => ({ scope: '', audience: AUDIENCE, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } } }),
      },
    },
  });
}

let current = provider([signingKey()]);

async function approve(query) {
  const code = await current.DeviceCode.findByUserCode(query.get('user_code').replaceAll('-', ''), { ignoreExpiration: true });
  const account = query.get('account');
  const grant = new current.Grant({ clientId: code.clientId, accountId: account });
  grant.addOIDCScope(code.params.scope);
  const grantId = await grant.save();
  const now = Math.floor(Date.now() / 1000);
  Object.assign(code, { accountId: account, grantId, scope: code.params.scope, claims: {}, authTime: now, acr: '', amr: [] });
  await code.save();
}

server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  try {
    if (url.pathname === '/test/approve') {
      await approve(url.searchParams);
      response.end('{}');
    } else if (url.pathname === '/test/rotate') {
      current = provider([signingKey()]);
      response.end('{}');
    } else {
      current.callback()(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error.stack));
  }
});

console.log(`issuer ${issuer}`);
// The test holds the other end: without it nobody needs this any more.
process.stdin.resume().on('end', () => process.exit(0));
