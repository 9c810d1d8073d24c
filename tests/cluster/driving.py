"""A driver that outlives what it uses, or not: statements in, rows and errors out.

A process of its own, since a test may take its cluster away. It reads a line of JSON
for each statement, and writes one for each row, then one with the end or the error.
"""

import json
import sys
import warnings

import torch

import thanosql

torch.set_num_threads(1)

OUTPUT = sys.stdout
sys.stdout = sys.stderr  # so that nobody else writes between the findings


def tell(**finding):
    OUTPUT.write(json.dumps(finding) + "\n")
    OUTPUT.flush()


def main(path, address=None):
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", thanosql.Warning)  # to standard error
    with thanosql.connect(path, ray_address=address) as connection:
        for statement in map(json.loads, sys.stdin):
            try:
                for row in connection.execute(statement):
                    tell(row=row)
                connection.commit()
            except (thanosql.Error, KeyboardInterrupt) as error:
                connection.rollback()
                tell(error=type(error).__name__, message=str(error))
            else:
                tell(end=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
