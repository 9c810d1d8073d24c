"""SQLAlchemy's own pytest plugin, told what SQLite has and has not.

SQLAlchemy leaves out the tests of what a dialect does not claim to have, so that a bare
suite says little. Claimed here, for any driver of SQLite, is what SQLite has.
"""

import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.dialects.sqlite import provision  # noqa: E402, F401 - for any driver
from sqlalchemy.testing import exclusions  # noqa: E402
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from sqlalchemy.testing.requirements import SuiteRequirements  # noqa: E402

HAS = """
    aggregate_order_by boolean_col_expressions check_constraint_reflection
    create_table_as create_temp_table_as ctes ctes_on_dml ctes_with_values
    date_historic datetime_historic datetime_literals dbapi_lastrowid except_
    expression_server_defaults foreign_key_constraint_name_reflection has_temp_table
    implicit_default_schema index_ddl_if_exists indexes_check_column_order
    indexes_with_expressions infinity_floats intersect isolation_level
    json_array_indexes json_type mod_operator_as_percent_sign nullsordering
    order_by_label_with_expression precision_numerics_enotation_small
    reflects_pk_names regexp_match repeated_column_foreign_keys
    repeated_remote_col_foreign_keys savepoints server_defaults supports_bitwise_and
    supports_bitwise_not supports_bitwise_or supports_bitwise_shift
    table_ddl_if_exists temp_table_names temporary_views timestamp_microseconds
    tuple_in tuple_in_w_empty unicode_ddl update_from uuid_data_type
    view_column_reflection view_reflection views window_functions window_range
    window_range_numeric
"""
HAS_NOT = [
    "reflect_table_options",
    "implicitly_named_constraints",
    "independent_connections",  # each would lack the schema that the suite attaches
    "parens_in_union_contained_select_w_limit_offset",
    "parens_in_union_contained_select_wo_limit_offset",
]


class Requirements(SuiteRequirements):
    """What SQLite has, through any driver."""


for _names, _answer in ((HAS.split(), exclusions.open), (HAS_NOT, exclusions.closed)):
    for _name in _names:
        if hasattr(SuiteRequirements, _name):  # SQLAlchemy 2.0 has not all of 2.1's
            setattr(Requirements, _name, property(lambda _self, a=_answer: a()))
