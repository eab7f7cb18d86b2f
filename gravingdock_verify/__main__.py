"""`python -m gravingdock_verify`."""

import sys

from gravingdock_verify.main import main

sys.exit(main())
