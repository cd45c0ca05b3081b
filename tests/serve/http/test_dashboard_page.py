"""The dashboard as a running server shows it."""

from tests.serve.http.test_rollout import ask, riding, until


def test_the_page_tells_of_what_was_answered(proven, tmp_path):
    with riding(proven, {}, log=tmp_path / "p.db") as served:
        assert all(ask(served, 3))
        until(lambda: b"Traffic and failures" in served.get("/dashboard").body)
        page = served.get("/dashboard")
        assert page.headers["content-type"].startswith("text/html")
        mark = {"If_None_Match": page.headers["etag"]}
        assert served.post("/dashboard?part=main", b"", "GET", **mark).status in (200, 304)
        moved = served.post("/", b"", "GET", Accept="text/html,*/*")
        assert (moved.status, moved.headers["location"]) == (307, "/dashboard")
        assert served.get("/").json["name"]
        foreign = served.post("/dashboard", b"", "GET", Sec_Fetch_Site="cross-site")
        assert foreign.status == 403


def test_without_a_log_there_is_no_page(proven):
    with riding(proven, {}) as served:
        refused = served.get("/dashboard")
        assert refused.status == 404
        assert "--log" in refused.error
        assert served.post("/", b"", "GET", Accept="text/html").status == 200
