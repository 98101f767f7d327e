"""`gotrace k8s`: the agent's manifest."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, say
from gotrace.errors import Exit, UsageError


@click.command(
    "k8s",
    cls=Command,
    topic="agent",
    short_help="Print the agent's manifest for Kubernetes.",
    examples=[
        ("gotrace k8s --image registry.example/gotrace:0.2.0 > gotrace.yaml", "writes what `kubectl apply -f` takes"),
        ("gotrace k8s --check gotrace.yaml", "says whether it has more rights than the agent needs"),
    ],
)
@click.option("--image", help="The agent's image, as `make image` builds it.")
@click.option("--namespace", default="gotrace", show_default=True, help="Where it is installed.")
@click.option("--no-pod-monitor", is_flag=True, help="Leave out what the Prometheus operator finds it by.")
@click.option("--old-kernels", is_flag=True, help="Add SYS_ADMIN: nodes have Linux before 6.10.")
@click.option("--check", is_flag=True, help="Look at the manifest FILE; exit status 1 if it has other rights.")
@click.argument("file", required=False, type=click.Path())
def command(
    image: str | None, namespace: str, no_pod_monitor: bool, old_kernels: bool, check: bool, file: str | None
) -> int | None:
    """Print what runs `gotrace serve` on every node of a cluster: a DaemonSet with the capabilities that it needs, and a
    service account that may ask for the names of pods.
    """
    import yaml

    from gotrace.agent import manifest
    from gotrace.text import printable

    if check != (file is not None):
        raise UsageError("--check and a FILE go together", "gotrace k8s --check gotrace.yaml")
    if file is not None:
        return _check(file)
    if image is None:
        raise UsageError("--image is missing", "build one with `make image`, push it, and give its name")
    for what, text in (("--image", image), ("--namespace", namespace)):
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise UsageError(f"{what} {printable(text)!r} is no name", "give one as kubectl takes it")
    made = manifest.documents(image, namespace, not no_pod_monitor, old_kernels)

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Without anchors, and with texts of several lines as they are."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    Dumper.add_representer(
        str,
        lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
    )
    click.echo(yaml.dump_all(made, Dumper=Dumper, sort_keys=False, width=120), nl=False)
    return None


def _check(path: str) -> int:
    import yaml

    from gotrace.agent import manifest
    from gotrace.text import printable

    try:
        with open(path, "rb") as file:
            found = list(yaml.safe_load_all(file))
    except OSError as error:
        raise UsageError(f"cannot read {printable(path)}: {error.strerror}", "check the path and its permissions") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{printable(path)} is no YAML: {printable(str(error).splitlines()[0])}", "correct it") from None
    said = manifest.faults([each for each in found if each is not None])
    for line in said:
        click.echo(printable(line))
    if not said:
        say("it has the rights that the agent needs, and no others")
    return Exit.FAIL if said else Exit.OK
