"""Runs prompts as ComfyUI does, as far as it can be seen from outside: order, messages, results, caching, expansion.

What a node does is told by its class_type (see `work`). Inputs are texts or links `[node_id, slot]`.
"""

# ruff: noqa: ARG001, ARG002, PLR0917, BLE001  the parameters are those of ComfyUI, used or not
import asyncio
import heapq
import os
import threading
import time
from enum import Enum

SHAPE = globals().get("SHAPE") or os.environ.get("COMFYUI_STUB_SHAPE", "0.26.0")


class ExecutionResult(Enum):
    SUCCESS = 0
    FAILURE = 1
    PENDING = 2


class InterruptProcessingException(Exception):
    pass


class DynamicPrompt:
    def __init__(self, prompt):
        self.original = prompt
        self.ephemeral = {}
        self.parents = {}

    def get_node(self, node_id):
        return self.ephemeral.get(node_id) or self.original[node_id]

    def get_parent_node_id(self, node_id):
        return self.parents.get(node_id)

    def get_display_node_id(self, node_id):
        return self.parents.get(node_id, node_id)

    def get_real_node_id(self, node_id):
        return self.parents.get(node_id, node_id)

    def add_ephemeral_node(self, node_id, node, parent_id):
        self.ephemeral[node_id] = node
        self.parents[node_id] = parent_id


class Outputs(dict):
    """The cache. In newer versions its `get` is asynchronous: who calls it by mistake gets a coroutine."""

    if SHAPE != "0.3.64":

        async def get(self, key):
            return dict.get(self, key)


class Caches:
    def __init__(self):
        self.outputs = Outputs()


interrupted = threading.Event()
working = []
"""The slow nodes that were begun."""
during = []
"""Called by each node while it works, with its id."""


def work(node_id, node, link, pending):
    """The result of a node, a coroutine of it, a list of inputs that it wants first, or the nodes that it becomes."""
    kind, text = node["class_type"], node["inputs"].get("text", "")
    text = link(text) if isinstance(text, list) else text
    for each in during:
        each(node_id)
    if kind == "Fail":
        raise ValueError(text)
    if kind == "Slow":
        working.append(node_id)
        interrupted.wait(10)
        raise InterruptProcessingException
    if kind == "Async":
        return after_a_while(node_id, text)
    if kind == "Lazy":
        wanted = node["inputs"]["which"]
        return link(node["inputs"][wanted]) if wanted in pending else [wanted]
    if kind in {"Expand", "ExpandFail"}:
        inner = {"class_type": "Fail" if kind == "ExpandFail" else "Value", "inputs": {"text": text}}
        return {f"{node_id}.0.0.1": inner, f"{node_id}.0.0.2": {"class_type": "Value", "inputs": {"text": "2"}}}
    return text


async def after_a_while(node_id, text):
    await asyncio.sleep(0.02)
    for each in during:
        each(f"{node_id} later")
    if text == "fail":
        raise RuntimeError("later")
    return text


def announce(server, node_id, prompt_id):
    if server is not None:
        server.send_sync("executing", {"node": node_id, "prompt_id": prompt_id})


async def run_node(dynprompt, caches, node_id, executed, ready, subgraphs, asynchronous):
    node = dynprompt.get_node(node_id)
    if dict.get(caches.outputs, node_id) is not None:
        return (ExecutionResult.SUCCESS, None, None)
    try:
        if node_id in asynchronous:
            result = asynchronous.pop(node_id)[0].result()
        elif node_id in subgraphs:
            result = dict.get(caches.outputs, subgraphs.pop(node_id))
        else:
            result = work(node_id, node, lambda link: dict.get(caches.outputs, link[0]), ready.get(node_id, ()))
        if asyncio.iscoroutine(result):
            asynchronous[node_id] = [asyncio.create_task(result)]
            return (ExecutionResult.PENDING, None, None)
        if isinstance(result, list):
            ready[node_id] = result
            return (ExecutionResult.PENDING, None, None)
        if isinstance(result, dict):
            for new_id, new in result.items():
                dynprompt.add_ephemeral_node(new_id, new, node_id)
            subgraphs[node_id] = list(result)[-1]
            return (ExecutionResult.PENDING, None, None)
        caches.outputs[node_id] = result
    except Exception as ex:
        details = {"node_id": dynprompt.get_real_node_id(node_id)}
        if not isinstance(ex, InterruptProcessingException):
            details |= {"exception_message": str(ex), "exception_type": type(ex).__name__, "traceback": ["  File x\n"]}
            details["current_inputs"] = node["inputs"]
        return (ExecutionResult.FAILURE, details, ex)
    executed.add(node_id)
    return (ExecutionResult.SUCCESS, None, None)


if SHAPE == "0.3.64":

    async def execute(
        server, dynprompt, caches, current_item, extra_data, executed, prompt_id, execution_list,
        pending_subgraph_results, pending_async_nodes,
    ):  # fmt: skip
        announce(server, current_item, prompt_id)
        return await run_node(
            dynprompt, caches, current_item, executed, execution_list, pending_subgraph_results, pending_async_nodes
        )

else:

    async def execute(
        server, dynprompt, caches, current_item, extra_data, executed, prompt_id, execution_list,
        pending_subgraph_results, pending_async_nodes, ui_outputs,
    ):  # fmt: skip
        announce(server, current_item, prompt_id)
        return await run_node(
            dynprompt, caches, current_item, executed, execution_list, pending_subgraph_results, pending_async_nodes
        )


class PromptExecutor:
    def __init__(self, server):
        self.server = server
        self.caches = Caches()
        self.status_messages = []
        self.success = True

    def add_message(self, event, data, broadcast):
        self.status_messages.append((event, {**data, "timestamp": int(time.time() * 1000)}))
        self.send(event, data)

    def send(self, event, data):
        if self.server is not None:
            self.server.send_sync(event, data)

    def execute(self, prompt, prompt_id, extra_data={}, execute_outputs=[]):  # noqa: B006  as there
        asyncio.run(self.execute_async(prompt, prompt_id, extra_data, execute_outputs))

    async def execute_async(self, prompt, prompt_id, extra_data={}, execute_outputs=[]):  # noqa: B006  as there
        self.status_messages = []
        self.success = True
        self.add_message("execution_start", {"prompt_id": prompt_id}, broadcast=False)
        cached = [node_id for node_id in prompt if node_id in self.caches.outputs]
        self.add_message("execution_cached", {"nodes": cached, "prompt_id": prompt_id}, broadcast=False)
        dynprompt, executed, ready, subgraphs, asynchronous = DynamicPrompt(prompt), set(), {}, {}, {}
        more = () if SHAPE == "0.3.64" else ({},)
        done, todo = set(), list(execute_outputs)
        while todo:
            node_id = todo[-1]
            missing = [each for each in self.wanted(dynprompt, node_id, ready, subgraphs) if each not in done]
            if missing:
                todo.extend(missing)
                continue
            result, error, ex = await execute(
                self.server, dynprompt, self.caches, node_id, extra_data, executed, prompt_id, ready, subgraphs,
                asynchronous, *more,
            )  # fmt: skip
            if result is ExecutionResult.FAILURE:
                self.success = False
                self.failed(prompt_id, prompt, error, ex, executed)
                return
            if result is ExecutionResult.SUCCESS:
                done.add(node_id)
                todo = [each for each in todo if each != node_id]
            elif node_id in asynchronous:
                await asyncio.wait(asynchronous[node_id])
        self.add_message("execution_success", {"prompt_id": prompt_id}, broadcast=False)

    def wanted(self, dynprompt, node_id, ready, subgraphs):
        if node_id in subgraphs:
            return [each for each, parent in dynprompt.parents.items() if parent == node_id]
        node = dynprompt.get_node(node_id)
        if node_id in self.caches.outputs:
            return []
        names = ready.get(node_id, ()) if node["class_type"] == "Lazy" else node["inputs"]
        return [node["inputs"][name][0] for name in names if isinstance(node["inputs"][name], list)]

    def failed(self, prompt_id, prompt, error, ex, executed):
        told = {"prompt_id": prompt_id, "node_id": error["node_id"], "executed": list(executed)}
        told["node_type"] = prompt[error["node_id"]]["class_type"]
        if isinstance(ex, InterruptProcessingException):
            self.add_message("execution_interrupted", told, broadcast=True)
        else:
            self.add_message("execution_error", {**told, **error, "current_outputs": []}, broadcast=False)


class PromptQueue:
    def __init__(self, server):
        self.server = server
        self.not_empty = threading.Condition()
        self.queue = []
        self.currently_running = {}
        self.history = {}

    def put(self, item):
        with self.not_empty:
            heapq.heappush(self.queue, item)
            self.not_empty.notify()

    def get(self):
        with self.not_empty:
            while not self.queue:
                self.not_empty.wait()
            item = heapq.heappop(self.queue)
            self.currently_running[item[1]] = item
            return item

    def task_done(self, item, status):
        with self.not_empty:
            self.history[item[1]] = {"prompt": item[:5], "status": status}
            del self.currently_running[item[1]]
