"""Run as a folder inside a container: its modules find each other by their plain names."""

import files
import kernel
import others
import trying

ALL = (kernel, files, others)  # which put their attacks into trying.ATTACKS

if __name__ == "__main__":
    trying.main()
