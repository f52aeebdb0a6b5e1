"""Lints all certificates of a folder with pkilint and tells what is FATAL or ERROR and not allowed."""

import collections
import pathlib
import sys

from pkilint import loader
from pkilint.pkix import certificate, extension, name
from pkilint.validation import ValidationFindingSeverity

folder, allowed = map(pathlib.Path, sys.argv[1:])
reasons = {}
for line in allowed.read_text().splitlines():
    if line.strip() and not line.startswith("#"):
        code, reason = line.split(None, 1)
        reasons[code] = reason
validator = certificate.create_pkix_certificate_validator_container(
    certificate.create_decoding_validators(
        name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
    ),
    [
        certificate.create_issuer_validator_container([]),
        certificate.create_validity_validator_container(),
        certificate.create_subject_validator_container([]),
        certificate.create_extensions_validator_container([]),
        certificate.create_spki_validator_container([]),
    ],
)
loads = loader.RFC5280CertificateDocumentLoader()
found, files = collections.Counter(), sorted(folder.glob("*.der"))
for file in files:
    document = loads.load_der_document(file.read_bytes(), file.name)
    for result in validator.validate(document.root):
        for finding in result.finding_descriptions:
            if finding.finding.severity <= ValidationFindingSeverity.ERROR:
                found[finding.finding.severity.name, finding.finding.code] += 1
bad = 0
for (severity, code), count in sorted(found.items()):
    reason = reasons.get(code) if severity == "ERROR" else None
    bad += reason is None
    print(f"{severity} {code}: {count} of {len(files)} certificates: {reason or 'NOT ALLOWED'}")
if not files:
    sys.exit("no certificate was signed")
print(f"{len(files)} certificates, {bad} findings that are not allowed")
sys.exit(bad > 0)
