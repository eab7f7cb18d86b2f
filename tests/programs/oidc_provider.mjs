// A real OpenID Connect provider on loopback, for tests: npm's `oidc-provider`, with people that the test decides.
// node oidc_provider.mjs FOLDER CALLBACK: prints its issuer, then reads people as JSON, one object a line, from stdin.
// FOLDER has node_modules. A person is {sub: {claims}}; who is in no line any more cannot sign in.
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

console.info = () => {}; // notices of the library: only our own lines go to stdout
const [folder, callback] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(createRequire(`${folder}/x.js`).resolve("oidc-provider")).href);

let people = {};
const server = createServer((request, response) => handle(request, response));
let handle = (request, response) => response.end();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "gravingdock",
      client_secret: "a secret of the test: with + signs",
      redirect_uris: [callback],
      response_types: ["code"],
      grant_types: ["authorization_code"],
      token_endpoint_auth_method: "client_secret_basic",
    },
  ],
  claims: { openid: ["sub"], profile: ["name", "preferred_username"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "profile", "email", "groups"],
  pkce: { required: () => true },
  cookies: { keys: ["only for this test"] },
  features: { devInteractions: { enabled: true } },
  findAccount: (context, sub) =>
    sub in people ? { accountId: sub, claims: () => ({ sub, ...people[sub] }) } : undefined,
});
handle = provider.callback();
console.log(issuer);
createInterface({ input: process.stdin }).on("line", (line) => {
  people = JSON.parse(line);
  console.log("known");
});
