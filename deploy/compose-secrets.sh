#!/bin/sh
# Write deploy/secrets/ and deploy/compose.env for compose.yaml, with random values. Existing files are not overwritten.
# The folder is private (0700). The files in it are readable, because the containers read them as different users.
set -eu
cd "$(dirname "$0")"
web_port=${WEB_PORT:-8470} registry_port=${REGISTRY_PORT:-5470}
public_url=${PUBLIC_URL:-http://localhost:$web_port}
registry_public_url=${REGISTRY_PUBLIC_URL:-http://localhost:$registry_port}
if [ -e secrets ]; then echo "deploy/secrets already exists. Nothing was written." >&2; exit 1; fi
command -v openssl >/dev/null || { echo "openssl is missing. Install it to create the keys." >&2; exit 1; }

random() { openssl rand -hex 32; }
draft=$(mktemp -d ./.secrets.XXXXXX)
trap 'rm -rf "$draft"' EXIT
cd "$draft"
umask 022
owner=$(random) app=$(random) redis=$(random) hook=$(random)
random >pg_superuser
printf '%s' "postgres://gravingdock_app:$app@postgres:5432/gravingdock" >database_url
printf '%s' "postgres://gravingdock_owner:$owner@postgres:5432/gravingdock" >database_owner_url
printf '%s' "redis://:$redis@redis:6379/0" >redis_url
printf '%s' "$(random)$(random)" >secret_key
openssl rand -base64 32 | tr '+/' '-_' >field_key
printf '%s' "$hook" >hook_secret
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt >token.pem
openssl req -new -x509 -key token.pem -days 10950 -subj "/CN=gravingdock registry tokens" \
  -addext "keyUsage=critical,digitalSignature" -out token-ca.pem
cat >roles.sql <<SQL
CREATE ROLE gravingdock_owner LOGIN NOSUPERUSER CREATEDB PASSWORD '$owner';
CREATE ROLE gravingdock_app LOGIN NOSUPERUSER PASSWORD '$app';
CREATE DATABASE gravingdock OWNER gravingdock_owner;
REVOKE ALL ON DATABASE gravingdock FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE gravingdock TO gravingdock_app;
SQL
cat >redis.conf <<CONF
requirepass $redis
dir /data
appendonly yes
save ""
maxmemory-policy noeviction
CONF
cat >registry.yml <<CONF
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http: {addr: ":5000", secret: "$(random)"}
auth:
  token:
    realm: $public_url/auth/token
    service: gravingdock-registry
    issuer: gravingdock
    rootcertbundle: /run/secrets/token_cert
notifications:
  events: {includereferences: true}
  endpoints:
    - name: gravingdock
      url: http://web:8470/hooks/registry/managed
      headers: {Authorization: ["Bearer $hook"]}
      timeout: 5s
      threshold: 3
      backoff: 1s
      ignore: {mediatypes: [application/octet-stream], actions: [pull]}
CONF
cd ..
cat >compose.env <<ENV
WEB_PORT=$web_port
REGISTRY_PORT=$registry_port
PUBLIC_URL=$public_url
REGISTRY_PUBLIC_URL=$registry_public_url
ALLOWED_HOSTS=$(printf '%s' "$public_url" | sed -E 's|^https?://||; s|:[0-9]+$||'),web
REGISTRY_URL=http://registry:5000
OUTBOUND_ALLOW=registry:5000
ENV
chmod 600 compose.env
chmod 700 "$draft"
mv "$draft" secrets
trap - EXIT
echo "Created deploy/secrets/ and deploy/compose.env. Keep both private and back them up."
