"""Time stamps of RFC 3161: an authority's word on when a signature existed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

from lifecycle.signatures.roots import Authority
from lifecycle.signatures.types import SignatureRefused


def verify_timestamp(der: bytes, signature: bytes, authorities: Sequence[Authority]) -> datetime:
    """Return the time that a trusted authority gave to the bytes of `signature`; raises SignatureRefused."""
    try:
        response = decode_timestamp_response(der)
    except ValueError as error:
        raise SignatureRefused("A time stamp cannot be read.") from error
    moment: datetime = response.tst_info.gen_time
    for authority in authorities:
        first, *middle, last = (*authority.certificates,) if len(authority.certificates) > 1 else (None, None)
        if first is None or last is None or not authority.period.covers(moment):
            continue
        builder = VerifierBuilder().tsa_certificate(first).add_root_certificate(last)
        for certificate in middle:
            builder = builder.add_intermediate_certificate(certificate)
        try:
            builder.build().verify_message(response, signature)
        except VerificationError:
            continue
        return moment
    raise SignatureRefused("A time stamp is from no trusted authority, or is not over this signature.")
