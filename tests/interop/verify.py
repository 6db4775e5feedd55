"""Verify a bundle with securesystemslib and in-toto-attestation; write its PAE and
signature for openssl. Usage: verify.py COMPONENT PUBLIC_KEY OTHER_KEY OUT_DIR"""

import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.v1 import statement, statement_pb2
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey


def key(path):
    return SSlibKey.from_crypto(load_pem_public_key(pathlib.Path(path).read_bytes()))


component, public, other, out = sys.argv[1:]
line = pathlib.Path(component + ".intoto.jsonl").read_text().splitlines()[0]
envelope = Envelope.from_dict(json.loads(line))
trusted = key(public)

# Our key id is the hint that is in the envelope; securesystemslib looks keys up by it.
keyid = json.loads(line)["signatures"][0]["keyid"]
trusted.keyid = keyid
assert keyid in envelope.verify([trusted], 1), "not verified by its own key"

stranger = key(other)
stranger.keyid = keyid
try:
    envelope.verify([stranger], 1)
except VerificationError:
    pass
else:
    sys.exit("securesystemslib accepted a stranger's key")

parsed = json_format.Parse(envelope.payload, statement_pb2.Statement())
checked = statement.Statement(parsed.subject, parsed.predicate_type, parsed.predicate)
checked.validate()
digest = hashlib.sha256(pathlib.Path(component).read_bytes()).hexdigest()
assert parsed.subject[0].digest["sha256"] == digest, "the subject is another file"

out = pathlib.Path(out)
(out / "pae").write_bytes(envelope.pae())
signature = next(iter(envelope.signatures.values())).signature
(out / "sig").write_bytes(bytes.fromhex(signature))
