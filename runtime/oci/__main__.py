"""`python -m runtime.oci`: the command line of an OCI runtime."""

import sys

from runtime.oci.command.boot import main

sys.exit(main(sys.argv[1:]))
