// panva's oidc-provider as a person would run it, with what a test must be able to switch.
// Usage: node panva_op.mjs CONFIG.json        (prints "ready VERSION" when it listens)
// The exchange grant is ours: the library has none. All else is the library's own.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const packages = createRequire(join(config.modules, 'package.json'));
const oidc = await import(pathToFileURL(packages.resolve('oidc-provider')));
const { version } = JSON.parse(
  readFileSync(join(config.modules, 'node_modules/oidc-provider/package.json'), 'utf8'));
const { Provider, errors } = oidc;

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const state = { lifetime: 3600, disabled: new Set() };

// Storage outlives a Provider: new keys mean a new Provider over the same storage, as an
// operator's restart over a database would be.
const stored = new Map();
class Storage {
  constructor(model) { this.model = model; }
  async upsert(id, payload, expiresIn) {
    const expires = expiresIn === undefined ? Infinity : Date.now() + expiresIn * 1000;
    stored.set(`${this.model}:${id}`, { payload: { ...payload }, expires });
  }
  async find(id) {
    const found = stored.get(`${this.model}:${id}`);
    return found && found.expires > Date.now() ? found.payload : undefined;
  }
  async findByUid(uid) {
    return this.entries().find(([, found]) => found.payload.uid === uid)?.[1].payload;
  }
  async findByUserCode() { return undefined; }
  async consume(id) { (await this.find(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { stored.delete(`${this.model}:${id}`); }
  async revokeByGrantId(grantId) {
    for (const [key, found] of stored) if (found.payload.grantId === grantId) stored.delete(key);
  }
  entries() { return [...stored].filter(([key]) => key.startsWith(`${this.model}:`)); }
}

const newKey = () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomUUID() };
};

const claims = (name) => ({
  sub: name, preferred_username: name, name, email: `${name}@example.org`,
  groups: config.users[name],
});
const findAccount = (_, name) =>
  (config.users[name] && !state.disabled.has(name)
    ? { accountId: name, claims: () => claims(name) } : undefined);

const service = (audience) => ({
  audience, scope: 'openid profile', accessTokenFormat: 'jwt', accessTokenTTL: state.lifetime,
  jwt: { sign: { alg: 'RS256' } },
});

async function exchange(provider, ctx) {
  const { params, client } = ctx.oidc;
  if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('subject_token_type');
  const subject = await provider.AccessToken.find(params.subject_token ?? '');
  if (!subject || !findAccount(ctx, subject.accountId)) {
    throw new errors.InvalidGrant('subject token is not active');
  }
  if (!config.audiences.includes(params.audience)) throw new errors.InvalidTarget('unknown audience');
  const granted = new Set(subject.scope.split(' '));
  const scope = (params.scope ?? '').split(' ');
  if (scope.some((one) => !granted.has(one))) throw new errors.InvalidScope('not granted', params.scope);
  const token = new provider.AccessToken({
    accountId: subject.accountId, client, grantId: subject.grantId, gty: EXCHANGE,
    scope: scope.join(' '), sessionUid: subject.sessionUid, sid: subject.sid,
  });
  token.resourceServer = new provider.ResourceServer(params.audience, service(params.audience));
  ctx.oidc.entity('AccessToken', token);
  ctx.body = {
    access_token: await token.save(), issued_token_type: ACCESS_TOKEN, token_type: 'Bearer',
    expires_in: token.expiration, scope: token.scope,
  };
}

function make(key) {
  const provider = new Provider(config.issuer, {
    adapter: Storage,
    clients: [{
      client_id: config.client_id,
      client_secret: config.client_secret,
      grant_types: ['authorization_code', 'refresh_token', EXCHANGE],
      redirect_uris: [config.redirect_uri],
      post_logout_redirect_uris: [config.post_logout_redirect_uri],
      backchannel_logout_uri: config.backchannel_logout_uri,
      backchannel_logout_session_required: true,
    }],
    jwks: { keys: [key] },
    cookies: { keys: ['of-a-test'] },
    claims: { openid: ['sub', 'sid'], profile: ['preferred_username', 'name', 'groups'], email: ['email'] },
    // Loopback is refused by default: back-channel calls of a test go nowhere else.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    rotateRefreshToken: true,
    issueRefreshToken: (_, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    ttl: { AccessToken: () => state.lifetime, IdToken: 600, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
    features: {
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      backchannelLogout: { enabled: true },
      resourceIndicators: { enabled: true, defaultResource: () => undefined, useGrantedResource: () => false, getResourceServerInfo: (_, name) => service(name) },
    },
    findAccount,
  });
  provider.registerGrantType(EXCHANGE, (ctx) => exchange(provider, ctx),
    ['audience', 'scope', 'requested_token_type', 'subject_token', 'subject_token_type']);
  provider.on('server_error', (_, error) => console.log('server_error', error.stack));
  provider.on('backchannel.error', (_, error) => console.log('backchannel.error', error.message));
  return provider.callback();
}

const control = {
  lifetime: ({ seconds }) => { state.lifetime = seconds; },
  rotate_keys: () => { serve = make(newKey()); },
  disable: ({ user }) => { state.disabled.add(user); },
  enable: ({ user }) => { state.disabled.delete(user); },
  revoke: ({ user }) => {
    for (const [key, found] of stored) if (found.payload.accountId === user) stored.delete(key);
  },
};

let serve = make(newKey());
createServer(async (request, response) => {
  if (!request.url.startsWith('/of-a-test/')) return serve(request, response);
  let body = '';
  for await (const piece of request) body += piece;
  control[request.url.split('/')[2]](JSON.parse(body));
  return response.end();
}).listen(config.port, '127.0.0.1', () => console.log(`ready ${version}`));
