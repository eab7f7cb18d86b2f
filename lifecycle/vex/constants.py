"""Limits of documents, and the words of the three formats in our terms."""

from __future__ import annotations

from typing import Final

DOCUMENT_MAX_BYTES: Final = 16 * 1024 * 1024
DEPTH_MAX: Final = 64  # nested objects and lists; product trees of real CSAF files have about 12
STATEMENTS_MAX: Final = 20_000  # in one document
PRODUCTS_MAX: Final = 2_000  # of one statement
SUBCOMPONENTS_MAX: Final = 5_000  # of one product
NAMES_MAX: Final = 50  # names of one vulnerability
TREE_MAX: Final = 200_000  # products of one CSAF product tree
TEXT_MAX: Final = 2_000
NAME_MAX: Final = 200  # of a vulnerability
REFUSED_MAX: Final = 100  # refused statements that are kept with their reasons; more are only counted

FEED_FILES_MAX: Final = 5_000  # of one feed
FEED_INDEX_MAX_BYTES: Final = 16 * 1024 * 1024
FEED_SIGNATURE_MAX_BYTES: Final = 64 * 1024
FEED_FETCH_S: Final = 60.0  # of one file
FEED_RUN_S: Final = 1800.0  # of one run; the next one continues
FEED_PATTERNS_MAX: Final = 100
FEED_EVERY_HOURS_MAX: Final = 24 * 30

AFFECTED: Final = "affected"
FIXED: Final = "fixed"
NOT_AFFECTED: Final = "not_affected"
UNDER_INVESTIGATION: Final = "under_investigation"
FALSE_POSITIVE: Final = "false_positive"
STATUSES: Final = (NOT_AFFECTED, FALSE_POSITIVE, FIXED, UNDER_INVESTIGATION, AFFECTED)
SUPPRESSING: Final = (NOT_AFFECTED, FALSE_POSITIVE, FIXED)  # a finding with one of these is not open

# https://github.com/openvex/spec, the words of CISA
JUSTIFICATIONS: Final = {
    "component_not_present": "The component is not in the image",
    "vulnerable_code_not_present": "The vulnerable code is not in the component",
    "vulnerable_code_not_in_execute_path": "The vulnerable code is never executed",
    "vulnerable_code_cannot_be_controlled_by_adversary": "An attacker cannot control the vulnerable code",
    "inline_mitigations_already_exist": "Built-in protections prevent an exploit",
}
