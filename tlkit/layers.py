"""Name a network's layers; select, transfer and freeze them. Pure functions on ``nn.Module``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from tlkit.errors import UserError, suggest

LayerSpec = int | str | Sequence[str]
"""First k layers (negative: last k), a name, a group, a glob, ``all``, or a list of names, groups and globs."""

NormMode = Literal["eval", "affine", "train", "statistics"]


@dataclass(frozen=True)
class Layer:
    """A named part of a network.

    Attributes:
        name: as it is addressed in YAML.
        modules: paths of the leaf modules that belong to it, and of modules that own its parameters directly.
        parameters: names of its parameters.
        buffers: names of its buffers that a checkpoint holds, such as running statistics.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """Returns a network's layers in order.

    A network that declares ``layer_modules`` is taken at its word. For any other: one layer per module that owns a
    weight of two or more dimensions, in module order, under its attribute path, together with the modules that follow
    it up to the next one (norm, activation, tokens). What comes before the first belongs to the first. Dropout goes
    with the layer whose input it drops, so that freezing a layer leaves the dropout of the next one alone.
    """
    declared: Mapping[str, tuple[str, ...]] | None = getattr(network, "layer_modules", None)
    owners = _declared_owners(network, declared) if declared else _derived_owners(network)
    if not owners:
        raise UserError(
            f"expected a network with at least one layer of weights, got {type(network).__name__} with none"
        )
    return {name: _layer(network, name, modules) for name, modules in owners.items()}


def network_of(module: nn.Module) -> nn.Module:
    """Returns the network that layers are named in: a LightningModule's attribute ``network``, else the module.

    Of a compiled one it is the original, whose weights it shares.
    """
    network = getattr(module, "network", None)
    found = network if isinstance(network, nn.Module) else module
    return found._orig_mod if isinstance(found, OptimizedModule) else found


def groups_of(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Returns group name -> names of its layers; for derived layers, each module path that holds several of them."""
    if getattr(network, "layer_modules", None):  # an attribute `groups` of a foreign network may be anything
        return dict(getattr(network, "groups", {}))
    groups: dict[str, list[str]] = {}
    for name in layers_of(network):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            groups.setdefault(".".join(parts[:depth]), []).append(name)
    return {group: tuple(names) for group, names in groups.items()}


def select(network: nn.Module, spec: LayerSpec) -> list[str]:
    """Returns the names of the layers that a specification means, in the network's order.

    Args:
        network: any module.
        spec: the first k layers (negative: the last k), ``all``, a name, a group, a glob, or a list of these.

    Raises:
        UserError: more layers than there are, or a name, group or glob that matches none.
    """
    names = list(layers_of(network))
    if isinstance(spec, bool):
        raise UserError(f"expected a number of layers, a name, a group or a glob, got {spec}")
    if isinstance(spec, int):
        if abs(spec) > len(names):
            raise UserError(
                f"expected at most {len(names)} layers, got {spec}; {type(network).__name__} has: {', '.join(names)}"
            )
        return names[:spec] if spec >= 0 else names[spec:]
    groups = groups_of(network)
    wanted = [spec] if isinstance(spec, str) else list(spec)
    chosen = {name for pattern in wanted for name in _match(pattern, names, groups, network)}
    return [name for name in names if name in chosen]


def transfer(network: nn.Module, state: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Copies the parameters and buffers of some layers from a state dict; the others are not touched.

    Args:
        network: where they go.
        state: parameter and buffer names of the network -> tensors of the same shapes.
        names: the layers to copy.

    Raises:
        UserError: a tensor of these layers is missing or has another shape; nothing is copied then.
    """
    layers = layers_of(network)
    own = network.state_dict(keep_vars=True)
    faults, copies = [], []
    for name in names:
        for key in (*layers[name].parameters, *layers[name].buffers):
            if key not in state:
                faults.append(f"layer {name}: no '{key}'{suggest(key, state)}")
            elif state[key].shape != own[key].shape:
                faults.append(f"layer {name}: '{key}' has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}")
            else:
                copies.append((own[key], state[key]))
    if faults:
        raise UserError(
            f"expected the pretrained weights to match {type(network).__name__}, got:\n  "
            + "\n  ".join(faults[:10])
            + ("" if len(faults) <= 10 else f"\n  … and {len(faults) - 10} more")
            + "\ntransfer fewer layers (pretrain.layers), or use the network that was pretrained"
        )
    for target, source in copies:
        target.data.copy_(source)


def freeze(network: nn.Module, names: Sequence[str], norm: NormMode = "eval") -> None:
    """Freezes these layers, the others keep their state. Idempotent: apply it again after every ``.train()``.

    What is frozen already stays so: of several calls each adds to what the others freeze, until `thaw`.

    Args:
        network: any module.
        names: the layers to freeze.
        norm: normalisation in frozen layers. ``eval``: running statistics and affine parameters fixed, dropout off, so
            that the frozen part gives the same output in training as in evaluation. ``affine``: affine parameters
            fixed, statistics follow the data. ``train``: normalisation trains on as if it were not frozen.
            ``statistics``: nothing is fixed but running statistics; all weights train.
    """
    for parameter in frozen_parameters(network, names, norm):
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in frozen_modules(network, names, norm):
        module.training = False
    _sync_containers(network)


def frozen_parameters(network: nn.Module, names: Sequence[str], norm: NormMode) -> list[nn.Parameter]:
    """Returns the parameters that do not train where these layers are frozen."""
    if norm == "statistics":
        return []
    layers, modules = layers_of(network), dict(network.named_modules())
    kept = {key for name in names for key in _norm_parameters(modules, layers[name])} if norm == "train" else set()
    return [network.get_parameter(key) for name in names for key in layers[name].parameters if key not in kept]


def frozen_modules(network: nn.Module, names: Sequence[str], norm: NormMode) -> list[nn.Module]:
    """Returns the modules of frozen layers that stay in evaluation mode while the network trains."""
    layers, modules = layers_of(network), dict(network.named_modules())
    members = [modules[path] for name in names for path in layers[name].modules]
    if norm == "statistics":
        return [module for module in members if isinstance(module, _NormBase)]
    return [module for module in members if norm == "eval" or not isinstance(module, _NormBase)]


def thaw(network: nn.Module, names: Iterable[str]) -> None:
    """Makes all parameters of these layers trainable again, in the training mode of the network. Idempotent."""
    layers, modules = layers_of(network), dict(network.named_modules())
    for layer in (layers[name] for name in names):
        for key in layer.parameters:
            network.get_parameter(key).requires_grad_(True)
        for path in layer.modules:
            modules[path].training = network.training
    _sync_containers(network)


def is_frozen(network: nn.Module, layer: Layer) -> bool:
    """Tells whether no parameter of a layer trains."""
    return not any(network.get_parameter(key).requires_grad for key in layer.parameters)


def parameter_count(network: nn.Module, layer: Layer) -> int:
    """Returns the number of a layer's parameters."""
    return sum(network.get_parameter(key).numel() for key in layer.parameters)


def _sync_containers(network: nn.Module) -> None:
    """Sets a module with children to training exactly if one of them is: functional dropout reads its flag."""
    for module in reversed(list(network.modules())):
        children = list(module.children())
        if children and module is not network and not module._parameters:
            module.training = any(child.training for child in children)


def _norm_parameters(modules: Mapping[str, nn.Module], layer: Layer) -> frozenset[str]:
    return frozenset(
        f"{path}.{key}"
        for path in layer.modules
        if isinstance(modules[path], (_NormBase, nn.LayerNorm, nn.GroupNorm))
        for key, _ in modules[path].named_parameters(recurse=False)
    )


def _match(pattern: str, names: list[str], groups: Mapping[str, tuple[str, ...]], network: nn.Module) -> Sequence[str]:
    if pattern in names:
        return [pattern]
    if pattern in groups:
        return groups[pattern]
    if pattern == "all":
        return names
    matched = [name for name in names if fnmatchcase(name, pattern)]
    if not matched:
        raise UserError(
            f"expected a layer, group or glob of {type(network).__name__}, got '{pattern}'"
            f"{suggest(pattern, [*names, *groups]) or ';'} valid layers: {', '.join(names)}"
            + (f"; groups: {', '.join(groups)}" if groups else "")
        )
    return matched


def _declared_owners(network: nn.Module, declared: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for name, roots in declared.items():
        owners[name] = [
            ".".join(part for part in (root, path) if part)
            for root in roots
            for path, module in network.get_submodule(root).named_modules()
            if _is_leaf(module)
        ]
    return owners


def _derived_owners(network: nn.Module) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    waiting: list[str] = []
    current: str | None = None
    for path, module in network.named_modules():
        if not _is_leaf(module):
            continue
        if any(key.endswith("weight") and p.ndim >= 2 for key, p in module.named_parameters(recurse=False)):
            current = path
            owners[current] = [*waiting, path]
            waiting = []
        elif current is None or isinstance(module, _DropoutNd):
            waiting.append(path)
        else:
            owners[current].append(path)
    if current is not None:
        owners[current] += waiting
    return owners


def _is_leaf(module: nn.Module) -> bool:
    """A module without children, or one that owns parameters or buffers beside those of its children."""
    return not any(True for _ in module.children()) or bool(module._parameters) or bool(module._buffers)


def _layer(network: nn.Module, name: str, modules: list[str]) -> Layer:
    parameters: list[str] = []
    buffers: list[str] = []
    kept = set(network.state_dict(keep_vars=True))
    shared = {key for key, _ in network.named_parameters()}
    for path in modules:
        prefix = f"{path}." if path else ""
        module = network.get_submodule(path)
        parameters += [prefix + key for key, _ in module.named_parameters(recurse=False) if prefix + key in shared]
        buffers += [prefix + key for key, _ in module.named_buffers(recurse=False) if prefix + key in kept]
    return Layer(name, tuple(modules), tuple(parameters), tuple(buffers))
