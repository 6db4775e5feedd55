"""The programs' CycloneDX documents against the standard's own schema, and a broken one that
must be refused."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

validator = JsonStrictValidator(SchemaVersion.V1_5)
for path in sys.argv[1:]:
    text = open(path).read()
    if error := validator.validate_str(text):
        sys.exit(f"{path}: {error}")
    broken = json.loads(text)
    del broken["components"][0]["name"]
    if not validator.validate_str(json.dumps(broken)):
        sys.exit(f"{path}: a component without a name passed")
