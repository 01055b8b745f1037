"""What of the comparison touches nothing: requests, the generators' output, ratios, tables and the page."""
import re
import tomllib
import unittest
from pathlib import Path

import job
import output
import report

HERE = Path(__file__).resolve().parent


def row(peer, phase, **figures):
    return {"peer": peer, "phase": phase, "round": 0} | figures


class Job(unittest.TestCase):
    def test_tokens_are_the_same_in_every_run(self):
        first, second = job.users(2), job.users(2)
        self.assertEqual(first, second)
        self.assertEqual(job.token(first[0]), job.token(second[0]))
        self.assertEqual(len(set(job.users())), job.USERS)

    def test_the_pattern_lets_its_share_of_the_256_endings_through(self):
        for percentage, wanted in ((0, 0), (1, 3), (30, 77), (50, 128), (60, 154), (100, 256)):
            pattern = re.compile(job.hex_pattern(percentage))
            self.assertEqual(sum(bool(pattern.search(f"{n:02x}")) for n in range(256)), wanted, percentage)

    def test_frames_of_both_versions(self):
        self.assertEqual(job.say_frame(1, "heartbeat"), '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}')
        self.assertEqual(job.say_frame(2, "heartbeat"), '[null,"2","phoenix","heartbeat",{}]')

    def test_a_request_is_its_bytes(self):
        self.assertEqual(job.raw("POST", "/a", {"Host": "b"}, b"{}"),
                         b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


class Output(unittest.TestCase):
    def test_what_generators_print(self):
        self.assertEqual(output.of_wrk('noise\nJSON{"done":10,"secs":2.0}\n')["rps"], 5.0)
        text = ("finished in 870.20ms, 5745.80 req/s, 1.2MB/s\n"
                "requests: 5000 total, 5000 started, 5000 done, 4999 succeeded, 1 failed, 0 errored, 0 timeout\n")
        self.assertEqual(output.of_h2load(text), {"done": 5000, "secs": 0.8702, "rps": 5745.8, "non2xx": 1, "errors": 0})

    def test_what_strace_prints(self):
        text = ("% time     seconds  usecs/call     calls    errors syscall\n"
                "------ ----------- ----------- --------- --------- ----------------\n"
                " 60.00    0.600000          15     40000           writev\n"
                " 40.00    0.400000          10     40001         3 recvfrom\n"
                "------ ----------- ----------- --------- --------- ----------------\n"
                "100.00    1.000000          12     80001         3 total\n")
        self.assertEqual(output.of_strace(text), {"writev": 40000, "recvfrom": 40001})

    def test_what_the_flip_bench_prints(self):
        text = ("flip: file written (atomic rename): 200 changes, last old decision after p50 3.30 ms, p90 4.10 ms, max 5.40 ms\n"
                "flip: admin API (PUT /rollout): 200 changes, last old decision after p50 0.90 ms, p90 2.00 ms, max 17.80 ms\n"
                "flip: 12345 requests over 16 connections, none failed\n")
        found = output.of_flip(text)
        self.assertEqual([r["by"] for r in found], ["file", "admin"])
        self.assertEqual(found[1], {"by": "admin", "changes": 200, "p50_ms": 0.9, "p90_ms": 2.0, "max_ms": 17.8})


class Report(unittest.TestCase):
    def test_disturbed_rows_count_only_where_there_is_no_other(self):
        figures = report.Figures([row("a", "get1k", cpu_us=5.0, disturbed=True), row("a", "get1k", cpu_us=9.0, disturbed=False),
                                  row("b", "get1k", cpu_us=7.0, disturbed=True)])
        self.assertEqual(figures.least("a", "get1k", "cpu_us"), 9.0)
        self.assertEqual(figures.least("b", "get1k", "cpu_us"), 7.0)
        self.assertIsNone(figures.least("c", "get1k", "cpu_us"))
        self.assertEqual(report.marked(figures, "a", "get1k", "9.0"), "9.0")
        self.assertEqual(report.marked(figures, "b", "get1k", "7.0"), "7.0*")
        self.assertEqual(report.marked(figures, "b", "get1k", report.NONE), report.NONE)

    def test_a_target_is_met_at_its_limit_and_open_beyond(self):
        target = report.TARGETS[0]
        for ours, met in ((8.0, True), (8.1, False)):
            figures = report.Figures([row("ours", "get1k", cpu_us=ours), row("haproxy", "get1k", cpu_us=10.0)])
            self.assertEqual(target.judge(figures)[3], met)
        self.assertIsNone(target.judge(report.Figures([row("ours", "get1k", cpu_us=1.0)])))

    def test_two_cores_are_counted_by_processor_time(self):
        figures = report.Figures([row("ours", "two-1", cpu_us=10.0), row("ours", "two-2", cpu_us=10.5)])
        self.assertAlmostEqual(report.two_cores(figures, "ours"), 1.905, 3)

    def test_the_floor_is_no_peer_to_be_beaten(self):
        figures = report.Figures([row("relay", "get1k", cpu_us=5.0), row("nginx", "get1k", cpu_us=9.0), row("haproxy", "get1k", cpu_us=8.0)])
        self.assertEqual(report.cheapest_peer(figures), 8.0)

    def test_the_page_names_no_folder(self):
        peers = tomllib.loads((HERE / "peers.toml").read_text())
        shown = {name: report.command(spec["cmd"]) for name, spec in peers.items() if "cmd" in spec}
        self.assertEqual(shown["nginx-hdr"], "nginx -c nginx.conf")
        self.assertEqual(shown["caddy"], "env GOMAXPROCS=THREADS caddy run --config Caddyfile --adapter caddyfile")
        self.assertFalse([text for text in shown.values() if "/" in text or "{" in text])

    def test_faults_are_told(self):
        self.assertIn("All passed", report.passed([row("a", "get1k", cpu_us=1.0)]))
        self.assertEqual(report.passed([row("a", "fault", text="check: apikey on new")]), "Faults: a: check: apikey on new.")

    def test_tables_leave_out_what_has_no_figure(self):
        text = report.table("T", ["a", "b"], ["x", "y"], lambda peer: ["1", report.NONE] if peer == "x" else [report.NONE] * 2)
        self.assertEqual(text, "### T\n\n| peer | a |\n|---|---:|\n| x | 1 |\n")

    def test_no_rows_make_no_page_that_lies(self):
        self.assertNotIn(" met |", report.targets(report.Figures([])))
        self.assertEqual(report.tables(report.Figures([]), {}), "")

    def test_the_hand_written_part_is_never_touched(self):
        page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
        new = report.put_between(page, "new")
        self.assertEqual(new, f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n")
        self.assertEqual(report.put_between(new, "new"), new)
        for broken in ("", report.BEGIN, report.END + report.BEGIN, page + page):
            with self.assertRaises(ValueError):
                report.put_between(broken, "new")

    def test_the_page_can_be_written(self):
        page = (HERE.parent.parent / "docs/performance.md").read_text()
        self.assertIn("x", report.put_between(page, "x"))


class Peers(unittest.TestCase):
    def test_every_configuration_that_a_peer_names_is_there(self):
        peers = tomllib.loads((HERE / "peers.toml").read_text())
        self.assertIn("ours", peers)
        for name, spec in peers.items():
            for file in spec.get("render", {}).values():
                self.assertTrue((HERE / "config" / file).exists(), f"{name}: {file}")


if __name__ == "__main__":
    unittest.main()
