#!/usr/bin/env python3
"""Holds the source tree to its rules. Each function named rule_... is one rule.

    tests/tree/tree_test.py            all rules
    tests/tree/tree_test.py includes   one of them
    tests/tree/tree_test.py --list     their names

A rule yields one line for each violation: the place, what was found there, and what the rule allows.
"""

import ast
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ["kernels", "model", "data", "train", "analysis"]
CPP = (".cpp", ".h", ".cu", ".cuh", ".inc")
CODE = CPP + (".py", ".sh", ".sbatch", ".js", ".css", ".cmake", "CMakeLists.txt")

MAX_FILE_LINES = 400
MAX_FOLDER_FILES = 20  # without README.md and CMakeLists.txt, which every folder may have
MAX_FUNCTION_LINES = 60

# Folders that may have more files than MAX_FOLDER_FILES.
LARGE_FOLDERS = {"kernels/cuda"}  # a kernel is a file
# Sources without a header of their own name. An entry that ends in a slash stands for a folder.
NO_HEADER = {
    "kernels/cpu/": "op_declarations.inc declares every operation, for all backends",
    "kernels/reference/": "op_declarations.inc declares every operation, for all backends",
    "kernels/cuda/": "op_declarations.inc declares every operation, for all backends",
}
# Files that declare nothing for others: programs, and macros.
NO_NAMESPACE = {"main.cpp", "host_device.h"}
# Namespaces of tests beside routescope::testing.
TEST_NAMESPACES = ("routescope::testing", "routescope::planted", "routescope::micro", "simt")


def all_files():
    found = ["CMakeLists.txt"] + sorted(name for name in os.listdir(ROOT) if name.endswith(".md"))
    for top in FOLDERS + ["tests", "scripts", "configs"]:
        for folder, subfolders, names in os.walk(os.path.join(ROOT, top)):
            subfolders[:] = sorted(name for name in subfolders if name != "__pycache__")
            found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in sorted(names)]
    return found


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


FILES = all_files()


def files(endings, folders=None):
    tops = None if folders is None else tuple(folder + "/" for folder in folders)
    return [path for path in FILES if path.endswith(endings) and (tops is None or path.startswith(tops))]


def quoted_includes(folders):
    """Yields (file, line number, included path) of every #include of a file of this project."""
    for path in files(CPP, folders):
        for number, line in enumerate(read(path).splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if match:
                yield path, number, match[1]


# ---- who may include whom -------------------------------------------------------------------------------------------


def include_table():
    """The README's table of folders: folder -> folders that it may include."""
    lines = read("README.md").splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("|") and "may include" in line), None)
    if start is None:
        sys.exit("README.md: no table with a column 'may include'")
    column = [cell.strip() for cell in lines[start].split("|")].index("may include")
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = line.split("|")
        names = re.findall(r"`([^`]+?)/?`", cells[1])
        table[names[0]] = re.findall(r"`([^`]+?)/?`", cells[column])
    return table


def rule_includes():
    """An include follows the table of folders in README.md."""
    table = include_table()
    missing = [folder for folder in FOLDERS + ["tests"] if folder not in table]
    if missing:
        yield f"README.md: the table of folders has no row for {', '.join(missing)}"
        return
    for path, number, included in quoted_includes(FOLDERS + ["tests"]):
        top = included.split("/")[0]
        if top not in table:
            continue  # beside the includer, generated, or a library's
        owner = max((row for row in table if path.startswith(row + "/")), key=len)
        allowed = [owner, *table[owner]]
        if not any(included.startswith(row + "/") for row in allowed):
            yield f"{path}:{number}: includes {included}, but {owner} may include only {', '.join(allowed)}"


# ---- rooms ----------------------------------------------------------------------------------------------------------


def cmake_commands(folder):
    """The (command, arguments) of a folder's CMakeLists.txt."""
    path = f"{folder}/CMakeLists.txt"
    text = re.sub(r"#.*", "", read(path)) if path in FILES else ""
    return [(name, arguments.split()) for name, arguments in re.findall(r"(\w+)\(([^()]*)\)", text)]


def room_links():
    """Room folder -> its target, and target -> targets that it links, as the CMakeLists.txt of the folders say."""
    rooms, links = {}, {}
    for folder in sorted({os.path.dirname(path) for path in files("CMakeLists.txt", FOLDERS)}):
        for name, arguments in cmake_commands(folder):
            target = arguments[0] if arguments else ""
            if name in ("routescope_room", "routescope_kernel_room") and not target.startswith("$"):
                target = rooms[folder] = "routescope_" + target
            elif name != "target_link_libraries":
                continue
            links.setdefault(target, []).extend(arguments[1:])
            if name == "routescope_kernel_room":  # every backend implements the interface in kernels/
                links[target] += ["routescope_kernel_options"] + ["routescope_kernel_core"] * (folder != "kernels")
    return rooms, links


def reachable(target, links):
    found, todo = set(), [target]
    while todo:
        for linked in links.get(todo.pop(), []):
            if linked not in found:
                found.add(linked)
                todo.append(linked)
    return found


def rule_rooms():
    """An include follows the libraries that rooms declare to CMake, and no two rooms need each other."""
    rooms, links = room_links()
    for room, target in rooms.items():
        through = sorted(linked for linked in links[target] if target in reachable(linked, links))
        if through:
            yield f"{room}/CMakeLists.txt: {target} needs itself, through {', '.join(through)}"
    for path, number, included in quoted_includes(FOLDERS):
        room, other = os.path.dirname(path), os.path.dirname(included)
        if room == other or room not in rooms or other not in rooms:
            continue
        if rooms[other] not in reachable(rooms[room], links):
            yield f"{path}:{number}: includes {included}, but {room}/CMakeLists.txt does not name {rooms[other]}"


# ---- namespaces -----------------------------------------------------------------------------------------------------


def rule_namespaces():
    """A file declares the namespace of its top-level folder, and no other."""
    for path in files(CPP, FOLDERS + ["tests"]):
        top, below = path.split("/")[:2]
        allowed = (f"routescope::{top}",) if top != "tests" else (f"routescope::{below}", *TEST_NAMESPACES)
        if below == "simt":
            allowed += ("routescope::kernels",)  # emulates parts of kernels/cuda
        open_names, declared = [], path.endswith(".inc")
        for number, line in enumerate(read(path).splitlines(), 1):
            opening = re.match(r"\s*(?:inline )?namespace ([\w:]+) \{", line)
            closing = re.match(r"\s*\}  // namespace ([\w:]+)", line)
            if closing and open_names:
                open_names.pop()
            if not opening:
                continue
            name = opening[1]
            fits = any(name == root or name.startswith(root + "::") for root in allowed)
            if not fits and (not open_names or name.startswith("routescope")):
                yield f"{path}:{number}: declares namespace {name}, but {top}/ may declare only {', '.join(allowed)}"
            open_names.append(name)
            declared = declared or name.startswith(allowed)
        if not declared and top != "tests" and os.path.basename(path) not in NO_NAMESPACE:
            yield f"{path}: declares no namespace, expected {allowed[0]}"


# ---- sizes ----------------------------------------------------------------------------------------------------------


def rule_file_sizes():
    """A file with code is short."""
    for path in files(CODE):
        lines = read(path).count("\n")
        if lines > MAX_FILE_LINES:
            yield f"{path}: {lines} lines, at most {MAX_FILE_LINES}"


def rule_folder_sizes():
    """A folder has few files of its own."""
    counts = {}
    for path in FILES:
        if os.path.basename(path) not in ("README.md", "CMakeLists.txt"):
            counts.setdefault(os.path.dirname(path), []).append(path)
    for folder, paths in counts.items():
        if len(paths) > MAX_FOLDER_FILES and folder not in LARGE_FOLDERS:
            yield f"{folder}/: {len(paths)} files, at most {MAX_FOLDER_FILES}"


def cpp_functions(path):
    """Yields (first line, lines of the body, has a reason) of the functions of a file that clang-format has laid out."""
    lines = read(path).splitlines()
    blocks = []  # open ones: (indentation, first line, line of the brace, is a function)
    first = None  # where the statement starts that the current line continues
    for number, line in enumerate(lines, 1):
        text = re.sub(r"//.*", "", line).rstrip()
        indent = len(text) - len(text.lstrip())
        if not text or text[indent] == "#":
            continue
        while text[indent] == "}" and blocks and blocks[-1][0] > indent:
            blocks.pop()  # closed at the end of a line, as "}};"
        if blocks and text[indent] == "}" and indent == blocks[-1][0]:
            _, start, brace, function = blocks.pop()
            if function:
                above = "\n".join(lines[max(start - 2, 0) : brace])
                yield start, number - brace, bool(re.search(r"NOLINT\w*\(readability-function-size\): \w", above))
            first = None
            if not text.endswith("{"):
                continue
        first = first or number
        if text.endswith("{"):
            head = " ".join(lines[first - 1 : number])
            scope = re.match(r"\s*(template <[^{]*> *)?(namespace|class|struct|union|enum|extern)\b", head)
            function = "(" in head and not any(block[3] for block in blocks)
            if scope and not re.search(r"\)[\w ]*\{$", text):
                function = False
            start_indent = len(lines[first - 1]) - len(lines[first - 1].lstrip())
            blocks.append((start_indent, first, number, function))
        if text.endswith(("{", ";", "}", ":")):
            first = None


def rule_function_sizes():
    """A long function says why, in a comment above it: NOLINTNEXTLINE(readability-function-size): the reason."""
    for path in files(CPP, FOLDERS + ["tests"]):
        for first, lines, reason in cpp_functions(path):
            if lines > MAX_FUNCTION_LINES and not reason:
                yield f"{path}:{first}: a function of {lines} lines, at most {MAX_FUNCTION_LINES} without a reason"
    for path in files(".py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    yield f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"


# ---- headers, READMEs, citations ------------------------------------------------------------------------------------


def rule_headers():
    """A source implements the header of its own name."""
    for path in files(".cpp", FOLDERS):
        excused = os.path.basename(path) == "main.cpp" or any(path.startswith(entry) for entry in NO_HEADER)
        if not excused and os.path.splitext(path)[0] + ".h" not in FILES:
            yield f"{path}: no header of its own name beside it"


def rule_readmes():
    """A folder has a README, or a line in the README of a folder above it."""
    for folder in sorted({os.path.dirname(path) for path in FILES} - {""}):
        mirrored = folder.startswith("tests/") and any(path.startswith(folder[len("tests/") :] + "/") for path in FILES)
        if f"{folder}/README.md" in FILES or mirrored:
            continue
        above = os.path.dirname(folder)
        while above and f"{above}/README.md" not in FILES:
            above = os.path.dirname(above)
        name = os.path.relpath(folder, above or ".")
        readme = os.path.join(above, "README.md")
        names = "|".join(re.escape(each) for each in (name, os.path.basename(folder), folder))
        if not re.search(rf"`({names})/?`", read(readme)):
            yield f"{readme}: no line about `{name}/`, which has no README of its own"


def rule_places():
    """A place of this tree that a document names in backquotes exists."""
    tops = "|".join(FOLDERS + ["tests", "scripts", "configs"])
    for path in files(".md"):
        if path == "CHANGELOG.md":
            continue  # names what was
        for number, line in enumerate(read(path).splitlines(), 1):
            for name in re.findall(rf"`((?:{tops})/[\w./-]*)`", line):
                placeholder = re.search(r"\b[A-Z]{2,}\b(?!\.md)", name)
                places = [os.path.join(ROOT, name), os.path.join(ROOT, os.path.dirname(path), name)]
                if not placeholder and not any(map(os.path.exists, places)):
                    yield f"{path}:{number}: names {name}, which does not exist"


def rule_comments():
    """A file of this tree that a comment names exists."""
    tops = "|".join(FOLDERS + ["tests", "scripts", "configs"])
    name = re.compile(rf"(?<![\w/.])((?:{tops})/[\w./-]+\.(?:h|cpp|cu|inc|md|py|sh|yaml|js|html))\b")
    for path in files(CODE):
        if path.startswith("tests/tree/"):
            continue
        for number, line in enumerate(read(path).splitlines(), 1):
            comment = re.search(r"(?://|#(?!\s*include)|^\s*\*)(.*)", line)
            for named in name.findall(comment[1]) if comment else ():
                if not os.path.exists(os.path.join(ROOT, named)):
                    yield f"{path}:{number}: names {named}, which does not exist"


def rule_citations():
    """A cited section of model/MATH.md exists. Nothing cites a document that the tree does not have."""
    math = "model/MATH.md"
    titles = set(re.findall(r"^#+ (.+?)\s*$", read(math), re.M)) if math in FILES else set()
    gap = r"[\s/#*]+"  # also over the end of a line of a comment
    cited = re.compile(rf'MATH\.md,?{gap}("[^"]+"(?:(?:,|;| and){gap}"[^"]+")*)')
    for path in files(CODE + (".md", ".html", ".yaml")):
        if path.startswith("tests/tree/"):
            continue
        text = read(path)
        for match in cited.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            for quoted in re.findall(r'"([^"]+)"', match[1]):
                title = re.sub(gap, " ", quoted)
                if title not in titles:
                    yield f'{path}:{line}: cites MATH.md, "{title}", but {math} has no such section'
        for match in re.finditer(r"\bDESIGN(\.md|:)", text):
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: cites DESIGN.md, which is not in the tree"


def main():
    rules = {name[len("rule_") :]: rule for name, rule in globals().items() if name.startswith("rule_")}
    if sys.argv[1:] == ["--list"]:
        print("\n".join(rules))
        return 0
    failed = 0
    for name in sys.argv[1:] or rules:
        if name not in rules:
            sys.exit(f"tree_test.py: no rule '{name}', expected one of {', '.join(rules)}")
        violations = list(rules[name]())
        print("\n".join(violations + [f"{name}: {rules[name].__doc__} {len(violations)} violations"]))
        failed += len(violations)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
