import pytest, time, os
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_project(project, database):
    site = project(database=database, broker="amqp", lease=3.0)
    print(site.settings, site.directory)
    assert site.sql("SELECT count(*) AS n FROM app_effect WHERE pid > %s", [0]) == [{"n": 0}]
    site.python("from tests.app.tasks import record_effect; record_effect('x'); record_effect('x')")
    assert [r["attempt"] for r in site.sql("SELECT * FROM app_effect ORDER BY id")] == [1, 2]
    site.wait_until("SELECT count(*) = 2 FROM app_effect")
    t=time.time()
    with pytest.raises(AssertionError, match="nope"):
        site.wait_until(lambda: False, 0.3, "nope")
    site2 = project(database=database)
    assert site2.sql("SELECT * FROM app_effect") == []
    import subprocess
    p = subprocess.Popen(["sh","-c","trap '' TERM; setsid sleep 100 & sleep 100"], env=site.env)
    time.sleep(.2)
    assert len(site.processes()) == 3
    with pytest.raises(AssertionError, match="exit code 1"):
        site.manage("nonsense")
    with site.connect() as c:
        c.execute("BEGIN"); c.execute("INSERT INTO app_effect (message_id, attempt, pid, created) VALUES ('y', 1, 1, '2020-01-01')"); c.execute("ROLLBACK")
    import threading; threading.Thread(target=p.wait).start()
def test_service_fails(project):
    site = project()
    s = site.service("--nonsense")
    with pytest.raises(AssertionError, match="ended with exit code"):
        s.wait_ready()
