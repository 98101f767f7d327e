"""`gotrace k8s`: the agent's manifest."""

from __future__ import annotations

import click

from gotrace.cli.options import Command, say
from gotrace.errors import Exit, UsageError


@click.command(
    "k8s",
    cls=Command,
    topic="agent",
    short_help="Print a Kubernetes manifest for the agent.",
    examples=[
        ("gotrace k8s --image registry.example/gotrace:0.2.0 > gotrace.yaml", "writes a manifest for `kubectl apply -f`"),
        ("gotrace k8s --check gotrace.yaml", "checks that it grants what the agent needs and nothing more"),
    ],
)
@click.option("--image", metavar="IMAGE", help="The agent's image, as built by `make image`.")
@click.option("--namespace", default="gotrace", show_default=True, metavar="NAME", help="Namespace to install it in.")
@click.option("--no-pod-monitor", is_flag=True, help="Omit the PodMonitor for the Prometheus Operator.")
@click.option("--old-kernels", is_flag=True, help="Add CAP_SYS_ADMIN, for nodes with Linux before 6.10.")
@click.option("--check", is_flag=True, help="Check the permissions in the manifest FILE; exit status 1 if they differ.")
@click.argument("file", required=False, type=click.Path())
def command(
    image: str | None, namespace: str, no_pod_monitor: bool, old_kernels: bool, check: bool, file: str | None
) -> int | None:
    """Print a manifest that runs `gotrace serve` on every node of a cluster: a DaemonSet with the capabilities it needs,
    and a service account that may read pod names.
    """
    import yaml

    from gotrace.agent import manifest
    from gotrace.text import printable

    if check != (file is not None):
        raise UsageError("--check needs a FILE, and FILE needs --check", "gotrace k8s --check gotrace.yaml")
    if file is not None:
        return _check(file)
    if image is None:
        raise UsageError("no --image given", "build the image with `make image`, push it, and pass its name")
    for what, text in (("--image", image), ("--namespace", namespace)):
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise UsageError(f"invalid name for {what}: {printable(text)!r}", "use a name that kubectl accepts")
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
        raise UsageError(
            f"{printable(path)} is not valid YAML: {printable(str(error).splitlines()[0])}", "fix the file"
        ) from None
    said = manifest.faults([each for each in found if each is not None])
    for line in said:
        click.echo(printable(line))
    if not said:
        say("the manifest grants what the agent needs and nothing more")
    return Exit.FAIL if said else Exit.OK
