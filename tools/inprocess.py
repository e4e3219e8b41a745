"""papermill's way to run a notebook, without a kernel: IPython's shell, in the process of whoever calls papermill.

A kernel is a second Python that takes a second to start and loads the library again. Outputs are those of a kernel.
"""

import base64
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import nbformat
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config


def encoded(data: dict) -> dict:
    """What is shown, as a notebook holds it: pictures in base 64."""
    return {kind: base64.b64encode(of).decode() if isinstance(of, bytes) else of for kind, of in data.items()}


class Results(DisplayHook):
    """The value of a cell's last line goes to the cell's outputs."""

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        about = {"data": encoded(format_dict), "metadata": md_dict or {}}
        self.shell.outputs.append(nbformat.v4.new_output("execute_result", execution_count=self.prompt_count, **about))


class Displays(DisplayPublisher):
    """What a cell displays goes to its outputs."""

    def publish(self, data, metadata=None, **about):
        shown = nbformat.v4.new_output("display_data", data=encoded(data), metadata=metadata or {})
        self.shell.outputs.append(shown)


class Shell(InteractiveShell):
    """IPython's shell, whose outputs are kept as those of a notebook's cell."""

    displayhook_class, display_pub_class = Results, Displays
    kernel = None  # pandas and others take a shell that has this for a notebook's, and another for a terminal's

    def __init__(self, **options):
        self.outputs = []
        super().__init__(**options)

    def enable_gui(self, gui=None):
        """There is no window."""

    def _showtraceback(self, etype, evalue, stb):
        self.outputs.append(
            nbformat.v4.new_output("error", ename=etype.__name__, evalue=str(evalue), traceback=list(stb))
        )


class Printed:
    """Standard output that is kept among a cell's outputs, and passed on."""

    def __init__(self, outputs: list, out):
        self.outputs, self.out = outputs, out

    def write(self, text: str) -> int:
        self.out.write(text)
        if text and (not self.outputs or self.outputs[-1].output_type != "stream"):
            self.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=""))
        if text:
            self.outputs[-1].text += text
        return len(text)

    def __getattr__(self, name: str):
        return getattr(self.out, name)


@contextmanager
def outputs_of(shell: Shell, cell, stdout, stderr):
    """Keep what is printed and shown in the block as outputs of a cell."""
    shell.outputs = cell.outputs = []
    with redirect_stdout(Printed(shell.outputs, stdout)), redirect_stderr(stderr):
        yield


class InProcess(Engine):
    """Run cells one after the other until one fails."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, stdout_file=None, stderr_file=None, **_):
        """Ends with what ended a cell, where that was the end of the program."""
        shell = Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
        for index, cell in enumerate(nb_man.nb.cells):
            if cell.cell_type != "code" or not cell.source:
                continue
            nb_man.cell_start(cell, index)
            with outputs_of(shell, cell, stdout_file or sys.stdout, stderr_file or sys.stderr):
                result = shell.run_cell(cell.source, store_history=True)
            cell.execution_count = result.execution_count
            error = result.error_before_exec or result.error_in_exec
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise error
            if error:
                nb_man.cell_exception(cell, index, exception=error)
                return
            nb_man.cell_complete(cell, index)


papermill_engines.register("inprocess", InProcess)
