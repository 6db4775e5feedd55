"""Verify a bundle with securesystemslib and in-toto-attestation; write its PAE and
signature for openssl. The further lines are provenance by the same key and a review.
Usage: verify.py COMPONENT PUBLIC_KEY OTHER_KEY OUT_DIR REVIEWER_KEY"""

import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement, statement_pb2
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey


def key(path):
    return SSlibKey.from_crypto(load_pem_public_key(pathlib.Path(path).read_bytes()))


component, public, other, out, reviewer = sys.argv[1:]
line, *further = pathlib.Path(component + ".intoto.jsonl").read_text().splitlines()
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

predicates = []
for line, signer in zip(further, [key(public), key(reviewer)], strict=True):
    signer.keyid = json.loads(line)["signatures"][0]["keyid"]
    envelope = Envelope.from_dict(json.loads(line))
    envelope.verify([signer], 1)
    parsed = json_format.Parse(envelope.payload, statement_pb2.Statement())
    statement.Statement(parsed.subject, parsed.predicate_type, parsed.predicate).validate()
    assert parsed.subject[0].digest["sha256"] == digest, "a further line is about another file"
    predicates.append(parsed)
assert predicates[0].predicate_type == "https://slsa.dev/provenance/v1"
made = json_format.Parse(json_format.MessageToJson(predicates[0].predicate), provenance_pb2.Provenance())
assert made.run_details.builder.id == "https://ci.example.com/runner"
assert len(made.build_definition.resolved_dependencies) == 2
assert predicates[1].predicate_type == "https://viworks.dev/attestation/security-review/v1"
