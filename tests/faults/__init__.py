"""The fault suite: what the service promises, under every fault of ``scenarios.py``. Run by ``scripts/faults``.

A scenario is a test with its id as a mark, under the workload W:

    @pytest.mark.scenario("F11")
    @on_rabbitmq                                                     # combinations.py: databases x brokers
    def test_...(project: ProjectFactory, rabbitmq: RabbitMQ, form: Form, scenario: Record,
                 database: Database, broker: Broker) -> None:
        site = project(database=database, broker=broker, **form.settings)
        with Workload(site, form, scenario) as load:                 # 2 services x 2 processes x 4 threads, 2 producers
            rabbitmq.suspend(); scenario.fault(); away = time.monotonic()
            load.go_on(100)                                          # so many more tasks published
            rabbitmq.resume(); back = time.monotonic()
            assert load.resumed(after=back) < form.limit(5.0)        # first task that begins after it; is reported
            load.work_goes_on(50)                                    # so many more tasks COMPLETED
            load.finish()                                            # producers end when form.tasks are published
        load.check()                                                 # at rest, I1-I7, services stopped; is reported
        never_waited(load, form, away, back)

Fixtures (conftest.py, and tests/conftest.py for project, rabbitmq, postgresql)
    form            sizes: form.tasks, form.times(short, full), form.seconds(short, full), form.random (seeded by test),
                    form.settings (lease 3 s, heartbeat 0.5 s; full: defaults), form.lease, form.limit(promised seconds)
    scenario        the report: .fault(n), .recovered(*seconds), .remark(text); the rest is entered by Workload.check()
    broker_proxy, database_proxy   ``FaultProxy``: .pass_on() .cut() .black_hole() .half_open() .delay(s)
                    .cut_after(n); project(..., broker_port=broker_proxy.port, database_port=database_proxy.port).
                    ``site.sql``, ``site.broker_url`` and the functions of invariants.py go past them.
    database_clock  database_clock(seconds) restarts PostgreSQL with a shifted clock

Workload(site, form, scenario, services=2, processes=2, threads=4, producers=2, tasks, rate, longest=0.1, clocks=False)
    .services .running_services() .start_service()        .kill_worker() .kill_service(service) .kill_producer(n)
    .go_on(n) .work_goes_on(n) .resumed(after=moment)      .calls() .publish_p99(since, until)   .finish()
    .settle()  all at rest: nothing unfinished, queues empty, all consumers (I5); threads, descriptors, connections (I6)
    .check(extra_runs=0, planned_failures=(), stop=True, settle=True) -> ``Balance``: lost, phantom, doubled ... (I1-I4,
               I7); kills by the methods above allow for doubled plain tasks, another fault by ``extra_runs``
    .clocks["service 1"].shift(seconds), .clocks["producers"].shift(seconds), with clocks=True; see clocks.py
    .journal   what tasks wrote: .marks() (what, name, pid, monotonic time), .runs(), .wait_begun(name)

Half of the tasks are plain (``fault_tasks.nap``: begin and end in the journal, works without a database), half atomic
(``fault_tasks.effect``: an Effect row); a name ends with its kind: ``p0-17-atomic``. Tests may publish tasks of their
own beside it with ``publish_all`` of load.py; names without such an ending are not counted. Moments are those of
time.monotonic(). ``work_goes_on`` and ``kill_worker`` need the database, ``go_on``, ``resumed`` and ``finish`` do not.
A test of a scenario takes 5 to 15 seconds in the short form. An id without a test has its reason in scenarios.py.
"""
