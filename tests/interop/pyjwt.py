"""Signs and verifies tokens by PyJWT.

usage: pyjwt.py sign   < {"claims": {...}}        prints a list of tokens, one per algorithm, with the keys that verify them
       pyjwt.py verify < [{"algorithm", "jwk", "token", "issuer", "audience"}]   prints the list of their claims, or fails
"""

import json
import secrets
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

ALGORITHMS = get_default_algorithms()

GENERATE = {
    "HS256": lambda: secrets.token_urlsafe(32),
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def specimen(algorithm, claims):
    private = GENERATE[algorithm]()
    if algorithm == "HS256":
        public, key = private.encode(), private
    else:
        public = private.public_key()
        key = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    kid = f"pyjwt-{algorithm}"
    return {
        "library": f"PyJWT {jwt.__version__}",
        "algorithm": algorithm,
        "kid": kid,
        "key": key,
        "jwk": ALGORITHMS[algorithm].to_jwk(public, as_dict=True),
        "token": jwt.encode(claims, private, algorithm=algorithm, headers={"kid": kid}),
    }


def verify(order):
    key = jwt.PyJWK(order["jwk"], order["algorithm"]).key
    return jwt.decode(
        order["token"],
        key,
        algorithms=[order["algorithm"]],
        issuer=order["issuer"],
        audience=order["audience"],
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )


given = json.load(sys.stdin)
if sys.argv[1] == "sign":
    answer = [specimen(algorithm, given["claims"]) for algorithm in GENERATE]
else:
    answer = [verify(order) for order in given]
json.dump(answer, sys.stdout, indent=2)
