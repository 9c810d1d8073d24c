"""`python -m thanosql` is the `thanosql` command."""

import sys

from thanosql.frontends.shell import main

sys.exit(main())
