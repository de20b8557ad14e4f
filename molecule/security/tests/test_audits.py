"""What tools that others wrote say of a site that was set up with the defaults."""


def test_the_site_is_up(site):
    assert site.get("/readyz").status_code == 200
