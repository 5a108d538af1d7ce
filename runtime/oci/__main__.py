"""`python -m runtime.oci`: the command line of an OCI runtime."""

import sys

from runtime.oci.command.boot import main

main(sys.argv[1:])
