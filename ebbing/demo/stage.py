"""The steps of the demonstration, in order."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from rich.syntax import Syntax

from ebbing.cli import CommandError
from ebbing.client import Client
from ebbing.demo.log import Log, read_log
from ebbing.demo.narrator import Narrator
from ebbing.demo.processes import Children, choose_ports, run, run_for_output
from ebbing.demo.protagonist import Protagonist, choose_protagonists
from ebbing.demo.replay import write_catalogue, write_log
from ebbing.demo.story import shown_by_the_answers, tell
from ebbing.terminal import date, plain

__all__ = ["Stage"]

GENERATED_PROTAGONIST = "ada"
TRITON_PORT, TRITON_METRICS_PORT = 8001, 8002
START_S = 90.0
"""How long a program may take to be ready, seconds."""
GENERATED_BUDGET_S, OWN_BUDGET_S = 40, 150
"""How long the retrieval model may train, so that nobody waits long for a first recommendation."""
METRICS_SHOWN = (
    "ebbing_user_events_total",
    "ebbing_slates_total",
    "ebbing_release_info",
    "ebbing_batch_rows_count",
    "ebbing_triton_request_duration_seconds_count",
)


class Stage:
    """Where the demonstration plays: folders and ports, chosen when it is made."""

    def __init__(
        self,
        repository: Path,
        work: Path,
        port: int,
        metrics_port: int,
        seed: int,
        narrator: Narrator,
    ) -> None:
        self._repository = repository
        self._work = work
        self._seed = seed
        self._narrator = narrator
        self._wanted = (port, metrics_port, TRITON_PORT, TRITON_METRICS_PORT)
        self.gateway_log = work / "gateway.log"
        self._triton_log = work / "triton.log"
        self._key = work / "signing.key"

    def play(self, data: Path | None, *, stay: bool) -> None:
        """The whole demonstration; with ``stay`` it serves on until Ctrl-C.

        Raises:
            CommandError: a step failed, or the story was not to be seen in the answers.
            EbbingError: the gateway refused a call.
        """
        self._narrator.say(
            "Ebbing serves recommenders whose users' interests evolve and fade. "
            "All that follows is computed now, on this machine."
        )
        self._work.mkdir(parents=True, exist_ok=True)
        folder = data or self._generate()
        log, candidates = self._choose(folder, None if data else GENERATED_PROTAGONIST)
        self._train(folder, OWN_BUDGET_S if data else GENERATED_BUDGET_S)
        release = self._publish()
        with Children() as children:
            port, metrics_port = self._start(children, release)
            target = f"127.0.0.1:{port}"
            with Client(target) as client:
                self._bring(client, target, log)
                self._first_recommendation(client, candidates[0])
                who = self._cast(client, candidates)
                tell(client, who, self._narrator)
            self._point_out(target, metrics_port, release, who)
            if stay:
                self._serve_on(children)
            self._narrator.step("Stopping the gateway and Triton")
            with self._narrator.task("stopping"):
                children.stop()
        self._narrator.say("Stopped.")

    def _generate(self) -> Path:
        self._narrator.step("Generating a log whose interests rise, rest and fade in known ways")
        folder = self._work / "data"
        with self._narrator.task("generating"):
            said = run_for_output("simulate", "--out", folder, "--seed", self._seed)
        self._narrator.say(plain(said.strip()))
        return folder

    def _choose(self, folder: Path, user_id: str | None) -> tuple[Log, list[Protagonist]]:
        narrator = self._narrator
        narrator.step(f"Looking for a story in {folder}")
        with narrator.task("reading"):
            log = read_log(folder)
            candidates = choose_protagonists(log, user_id)
        narrator.say(f"{len(log.events):,} events on {len(log.interests):,} items.")
        narrator.say(
            f"Counting finds users with an interest that faded while another one rose; "
            f"the clearest {len(candidates)} will be looked at."
            if user_id is None
            else f"It will be about {user_id}, one of the users."
        )
        return log, candidates

    def _train(self, folder: Path, budget_s: int) -> None:
        self._narrator.step("Training the retrieval and ranking models, and fitting forgetting")
        run(
            "train",
            *("--data", folder),
            *("--out", self._work / "run"),
            *("--seed", self._seed),
            *("--budget-seconds", budget_s),
        )

    def _publish(self) -> int:
        narrator = self._narrator
        narrator.step(f"Publishing the models into {self._repository}")
        if not self._key.exists():
            run_for_output("keys", "signing", "--out", self._key)
        with narrator.task("verifying, signing and publishing"):
            printed = run_for_output(
                "publish",
                self._work / "run",
                *("--repository", self._repository),
                *("--key", self._key),
                *("--force", "what is demonstrated is this run, whatever was published before"),
                "--json",
            )
        release = int(json.loads(printed)["release"])
        narrator.say(
            f"Release {release}: TorchScript models, forgetting parameters, signed manifest."
        )
        return release

    def _start(self, children: Children, release: int) -> tuple[int, int]:
        narrator = self._narrator
        narrator.step("Starting Triton and the gateway")
        for stale in (*self._work.glob("state.db*"), self._triton_log, self.gateway_log):
            stale.unlink(missing_ok=True)
        ports = choose_ports(self._wanted)
        for wanted, chosen in zip(self._wanted, ports, strict=True):
            if wanted != chosen:
                narrator.say(f"Port {wanted} is taken; using {chosen} instead.")
        port, metrics_port, triton_port, triton_metrics_port = ports
        triton_address = f"127.0.0.1:{triton_port}"
        triton = children.start(
            "Triton",
            self._triton_log,
            "triton",
            *("--repository", self._repository),
            *("--grpc-port", triton_port),
            *("--metrics-port", triton_metrics_port),
            *("--work", self._work / "triton"),
            *("--log", self._triton_log),
        )
        with narrator.task("waiting for Triton"):
            children.wait_until_serving(triton, triton_address, START_S)
        gateway = children.start(
            "the gateway",
            self.gateway_log,
            "serve",
            *("--state", self._work / "state.db"),
            *("--repository", self._repository),
            *("--triton", triton_address),
            *("--release", release),
            *("--release-key-file", self._key.with_name(f"{self._key.name}.pub")),
            *("--port", port),
            *("--metrics-port", metrics_port),
        )
        with narrator.task("waiting for the gateway, which loads and warms the models"):
            children.wait_until_serving(gateway, f"127.0.0.1:{port}", START_S)
        narrator.say("Both are ready.")
        return port, metrics_port

    def _bring(self, client: Client, target: str, log: Log) -> None:
        narrator = self._narrator
        narrator.step("Acting as an internal service: writing the catalogue and the log over gRPC")
        with narrator.task("writing items"):
            items = write_catalogue(client, log)
        with narrator.task("writing events", len(log.events), "events") as task:
            answers = write_log(target, log, task.advance)
            rate, seconds = task.rate, task.seconds
        accepted = sum(answer.accepted_count for answer in answers)
        narrator.say(
            f"{items:,} items; {accepted:,} events acknowledged in {seconds:.1f} s: "
            f"[bold]{rate:,.0f} events/s[/], each on disk before its acknowledgement."
        )
        refused = [ack for answer in answers for ack in answer.notable if ack.reason]
        if refused:
            narrator.say(
                f"[yellow]{len(refused):,} events were refused, the first for this: "
                f"{plain(refused[0].message)}[/]"
            )

    def _first_recommendation(self, client: Client, who: Protagonist) -> None:
        slate = client.recommend(who.user_id, who.end)
        if slate.degraded:
            raise CommandError(
                f"the first slate is degraded ({slate.degraded_reason}); "
                f"see {self.gateway_log} and {self._triton_log}"
            )
        best = slate.items[0].item_id if slate.items else "nothing"
        self._narrator.say(
            f"[bold]First recommendation after {self._narrator.elapsed:.1f} s[/]: "
            f"{plain(best)} for {plain(who.user_id)}."
        )

    def _cast(self, client: Client, candidates: list[Protagonist]) -> Protagonist:
        narrator = self._narrator
        narrator.step("Asking the gateway about the interests that counting says have faded")
        with narrator.task("asking", len(candidates), "users") as task:
            shown = shown_by_the_answers(client, candidates, task.advance)
        who = shown[0]
        if len(candidates) > 1:
            narrator.say(f"Its answers show the same for {len(shown)} of {len(candidates)} users.")
        narrator.say(
            f"The story is about {plain(who.user_id)}: {who.faded_events} events of "
            f"{plain(who.faded)}, then none, and {who.risen_events} of {plain(who.risen)} since."
        )
        return who

    def _point_out(self, target: str, metrics_port: int, release: int, who: Protagonist) -> None:
        narrator = self._narrator
        narrator.step("Where everything is")
        metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        manifest = self._repository / "releases" / str(release) / "manifest.json"
        for name, place in (
            ("gRPC", f"{target} (health and reflection are on)"),
            ("metrics", metrics),
            ("logs", f"{self.gateway_log}, {self._triton_log}"),
            ("report", f"{self._work / 'run' / 'report.md'}"),
            ("release", f"{release}, declared in {manifest}"),
        ):
            narrator.say(f"[bold]{name:8}[/] {plain(str(place))}")
        narrator.say()
        narrator.say(f"Some of what {metrics} says:")
        with urllib.request.urlopen(metrics, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        for line in (line for line in lines if line.startswith(METRICS_SHOWN)):
            narrator.say(f"[dim]{plain(line)}[/]")
        narrator.say()
        narrator.say(f"Why the interests of {plain(who.user_id)} stand where they do:")
        command = f"ebbing explain {who.user_id} --address {target} --at {who.end:.0f}"
        narrator.say(f"[dim]{plain(command)} --plot course.png[/]")
        narrator.say()
        narrator.say(
            f"From Python, as of {date(who.end)}, where the log of {plain(who.user_id)} ends:"
        )
        narrator.show(
            Syntax(
                "from ebbing.client import Client\n\n"
                f'with Client("{target}") as ebbing:\n'
                f'    for item in ebbing.recommend("{who.user_id}", at={who.end:.0f}).items:\n'
                "        print(item.item_id, item.relevance, item.forgetting)",
                "python",
                background_color="default",
            )
        )

    def _serve_on(self, children: Children) -> None:
        self._narrator.step("Serving until Ctrl-C")
        try:
            children.wait()
        except KeyboardInterrupt:
            self._narrator.say()
