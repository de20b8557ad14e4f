"""An app with a single file and requirements.txt."""

from __future__ import annotations


def test_the_page_and_its_settings(dice):
    page = dice.site.get("/?count=3")
    assert page.status_code == 200
    assert page.text.count(" + ") == 2
    assert "of 20 sides" in page.text
    assert dice.site.get("/?count=11").status_code == 400


def test_links_have_the_host_of_the_request(host, dice):
    dice.site.name = "dice.example.com:8080"
    assert 'href="http://dice.example.com:8080/?count=2' in dice.site.get("/").text
    # Headers of a load balancer, as nginx forwards them.
    program = (
        "import http.client, socket; link = http.client.HTTPConnection('other');"
        "link.sock = socket.socket(socket.AF_UNIX); link.sock.connect('/srv/dice/web.sock');"
        "link.request('GET', '/', headers={'X-Forwarded-Host': 'dice.example.com',"
        "'X-Forwarded-Proto': 'https', 'X-Forwarded-Prefix': '/games'});"
        "print(link.getresponse().read().decode())"
    )
    page = host.check_output("python3 -c %s", program)
    assert 'href="https://dice.example.com/games/?count=2' in page
