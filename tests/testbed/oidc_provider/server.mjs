// oidc-provider at the paths that the rig expects: `node server.mjs HOST PORT` prints the port once it listens; 0 is any
// free one. What it has issued is in memory and ends with it.
//
// TESTBED is JSON: client_id, client_secret, username, password; `configuration`, what of oidc-provider's own differs;
// `disabled`, a file: while it exists the user is disabled.

import { generateKeyPairSync } from "node:crypto";
import { existsSync } from "node:fs";
import { createServer } from "node:http";

import { Provider, errors } from "oidc-provider";

const { client_id, client_secret, username, password, configuration, disabled } = JSON.parse(process.env.TESTBED);
const [host, port] = process.argv.slice(2);
const SCOPE = "openid offline_access";
const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });

const server = createServer();
server.listen(Number(port), host, () => {
  const { port: bound } = server.address();
  const provider = new Provider(`http://${host}:${bound}`, {
    clients: [
      {
        client_id,
        client_secret,
        token_endpoint_auth_method: "client_secret_post",
        grant_types: ["refresh_token", "password"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: "ES256",
      },
    ],
    cookies: { keys: ["testbed"] },
    features: { devInteractions: { enabled: false }, introspection: { enabled: true }, revocation: { enabled: true } },
    findAccount: (_, id) => (existsSync(disabled) ? undefined : { accountId: id, claims: () => ({ sub: id }) }),
    jwks: { keys: [{ ...key, alg: "ES256", use: "sig" }] },
    routes: { token: "/v2/token", introspection: "/v2/introspect", revocation: "/v2/revoke", userinfo: "/v2/me" },
    scopes: SCOPE.split(" "),
    ...configuration,
  });
  // It has no password grant of its own (RFC 6749, section 4.3): this is the one that the customers' servers have.
  provider.registerGrantType(
    "password",
    async (context) => {
      const { client, params } = context.oidc;
      if (params.username !== username || params.password !== password) throw new errors.InvalidGrant("wrong password");
      const grant = new provider.Grant({ accountId: username, clientId: client.clientId });
      grant.addOIDCScope(SCOPE);
      const issued = { accountId: username, client, grantId: await grant.save(), gty: "password", scope: SCOPE };
      const token = new provider.AccessToken(issued);
      context.body = {
        access_token: await token.save(),
        expires_in: token.expiration,
        refresh_token: await new provider.RefreshToken(issued).save(),
        token_type: "Bearer",
      };
    },
    ["username", "password", "scope"],
  );
  server.on("request", provider.callback());
  process.stdout.write(`${bound}\n`);
});
