"""A small node agent: what a kubelet and a scheduler do for the pods of these tests.

It speaks to a real API server as ``system:node:NAME`` (and binds pods as the scheduler), and
runs each container with crun in its own mount, pid and uts namespaces, sharing its pod's
network. Where Kubernetes has a rule, it is kubelet's own, the inconvenient ones included.

What it does not do: real images (an image name stands for an overlay of the host's root, see
``images``), resource limits, seccomp profiles, Services and DNS, ``shareProcessNamespace``.
"""
