// Signs and verifies tokens by jose.
//
// usage: jose.mjs sign   < {"claims": {...}}        prints a list of tokens, one per algorithm, with the keys that verify them
//        jose.mjs verify < [{"algorithm", "jwk", "token", "issuer", "audience"}]   prints the list of their claims, or fails

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { exportJWK, exportSPKI, generateKeyPair, importJWK, jwtVerify, SignJWT } from 'jose';

const version = JSON.parse(readFileSync(new URL('node_modules/jose/package.json', import.meta.url))).version;

async function keysOf(algorithm) {
  if (algorithm === 'HS256') {
    const key = randomBytes(32).toString('base64url');
    const secret = new TextEncoder().encode(key);
    return { signing: secret, key, jwk: await exportJWK(secret) };
  }
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true });
  return { signing: privateKey, key: await exportSPKI(publicKey), jwk: await exportJWK(publicKey) };
}

async function specimen(algorithm, claims) {
  const { signing, key, jwk } = await keysOf(algorithm);
  const kid = `jose-${algorithm}`;
  const token = await new SignJWT(claims).setProtectedHeader({ alg: algorithm, typ: 'JWT', kid }).sign(signing);
  return { library: `jose ${version}`, algorithm, kid, key, jwk, token };
}

async function verify({ algorithm, jwk, token, issuer, audience }) {
  const { payload } = await jwtVerify(token, await importJWK(jwk, algorithm), {
    algorithms: [algorithm],
    issuer,
    audience,
    requiredClaims: ['exp', 'iat', 'iss', 'aud', 'sub'],
  });
  return payload;
}

const given = JSON.parse(readFileSync(0, 'utf8'));
const answer =
  process.argv[2] === 'sign'
    ? await Promise.all(['HS256', 'RS256', 'ES256', 'EdDSA'].map((algorithm) => specimen(algorithm, given.claims)))
    : await Promise.all(given.map(verify));
console.log(JSON.stringify(answer, null, 2));
