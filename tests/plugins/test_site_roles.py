"""A host gets the roles of its groups, in the order of the list."""

from site_roles import in_groups

ROLES = [
    {"name": "base", "groups": ["all"]},
    {"name": "redis", "groups": ["cache", "queue"]},
    {"name": "nginx", "groups": ["edge"]},
]


def test_host_has_the_roles_of_its_groups():
    assert in_groups(ROLES, ["cache", "queue"]) == ["base", "redis"]
    assert in_groups(ROLES, ["edge"]) == ["base", "nginx"]
    assert in_groups(ROLES, []) == ["base"]
