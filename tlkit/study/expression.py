"""``where``: an expression over the columns of a table, evaluated by hand: nothing in it can call or reach code.

``pretrain.layers > 3 and freeze in ["none", "encoder"]``. A column is given by its name, dotted or plain, or between
backticks if it is no such word: `` `val loss` < 0.1 ``.
"""

import ast
import operator
import re
from typing import Any

import pandas as pd

from tlkit.errors import UserError, suggest

COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
NAMED = r"""(?P<text>"[^"]*"|'[^']*')|`(?P<name>[^`]+)`|\b[A-Za-z_]\w*(?:\.\w+)+"""
"""What is no name to Python: words between backticks, dotted paths (``with`` may be a part); quoted text stays."""
HELP = "comparisons, in, and, or, not, arithmetic, numbers, quoted text and column names"


def select(frame: pd.DataFrame, expression: str) -> pd.Series:
    """Returns which rows an expression holds for, as booleans.

    Columns whose every value reads as a number are numbers here, all others text.

    Args:
        frame: the table.
        expression: see the module.

    Raises:
        UserError: not an expression of this kind, a column that does not exist, text compared with a number.
    """
    quoted: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        if match["text"]:
            return match[0]
        quoted.append(match["name"] or match[0])
        return f"_quoted_{len(quoted) - 1}_"

    try:
        tree = ast.parse(re.sub(NAMED, placeholder, expression.strip()), mode="eval")
    except (SyntaxError, ValueError) as error:
        hint = "; equal is ==" if re.search("(?<![=!<>])=(?!=)", expression) else ""
        raise UserError(f"expected an expression of {HELP}, got '{expression}'{hint}") from error
    rows = _Rows(frame, quoted, expression).value(tree.body)
    if not isinstance(rows, pd.Series) or rows.dtype != bool:
        raise UserError(f"expected a condition on the columns, got '{expression}'")
    return rows


def as_numbers(column: pd.Series) -> pd.Series | None:
    """Returns a column as floats, NaN where it is empty; None if any value reads as no number, or all are empty."""
    text = column.astype("object").map(lambda value: None if _empty(value) else _no_truth(value))
    numbers = pd.to_numeric(text, errors="coerce")
    return None if numbers.isna().gt(text.isna()).any() or text.isna().all() else numbers.astype(float)


def _empty(value: Any) -> bool:
    return bool(pd.isna(value)) or (isinstance(value, str) and value.strip().lower() in ("", "nan", "na", "null"))


def _no_truth(value: Any) -> Any:
    return str(value) if isinstance(value, bool) else value  # pandas takes True for 1


class _Rows:
    """Evaluates the nodes of one expression on a table."""

    def __init__(self, frame: pd.DataFrame, quoted: list[str], expression: str) -> None:
        self.frame, self.quoted, self.expression = frame, quoted, expression

    def value(self, node: ast.expr) -> Any:
        """Returns a column, a truth per row, or a constant."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return constant
            case ast.Name() | ast.Attribute():
                return self._column(node)
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.value(item) for item in node.elts]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._truth(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.BoolOp(op=op, values=values):
                joined = self._truth(values[0])
                for other in values[1:]:
                    joined = joined & self._truth(other) if isinstance(op, ast.And) else joined | self._truth(other)
                return joined
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self._calculated(ARITHMETIC[type(op)], left, right)
            case ast.Compare():
                return self._compare(node)
        raise UserError(f"expected {HELP}, got '{ast.unparse(node)}' in '{self.expression}'")

    def _number(self, node: ast.expr) -> Any:
        number = self.value(node)
        is_column = isinstance(number, pd.Series)
        if _is_text(number) or (number.dtype == bool if is_column else type(number) not in (int, float)):
            raise UserError(f"expected a number to calculate with, got '{ast.unparse(node)}' in '{self.expression}'")
        return number

    def _calculated(self, calculate: Any, left: ast.expr, right: ast.expr) -> Any:
        try:
            return calculate(self._number(left), self._number(right))
        except (ArithmeticError, ValueError) as error:  # of two constants: columns have infinity for that
            raise UserError(f"expected something to calculate, got {error} in '{self.expression}'") from error

    def _truth(self, node: ast.expr) -> Any:
        truth = self.value(node)
        if not isinstance(truth, pd.Series) or truth.dtype != bool:
            raise UserError(f"expected a condition, got '{ast.unparse(node)}' in '{self.expression}'")
        return truth

    def _compare(self, node: ast.Compare) -> Any:
        truth: Any = True
        left = self.value(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.value(comparator)
            if isinstance(op, ast.In | ast.NotIn):
                constants = isinstance(right, list) and not any(isinstance(value, pd.Series | list) for value in right)
                if not constants or not isinstance(left, pd.Series):
                    raise UserError(f"expected `column in [values]`, got '{ast.unparse(node)}'")
                for value in right:
                    self._same_kind(left, value)
                found = left.isin(right)
                truth = truth & (found if isinstance(op, ast.In) else ~found)
            elif type(op) in COMPARE and not isinstance(left, list) and not isinstance(right, list):
                self._same_kind(left, right)
                truth = truth & COMPARE[type(op)](left, right)
            else:
                raise UserError(f"expected {HELP}, got '{ast.unparse(node)}'")
            left = right
        return truth

    def _same_kind(self, left: Any, right: Any) -> None:
        """Refuses text against number, which would be true or false for every row."""
        texts = {_is_text(side) for side in (left, right)}
        if len(texts) == 2:
            names = [f"'{side.name}'" if isinstance(side, pd.Series) else repr(side) for side in (left, right)]
            raise UserError(f"expected two numbers or two texts, got {names[0]} against {names[1]}, one is text")

    def _column(self, node: ast.expr) -> Any:
        name = ast.unparse(node)
        if match := re.fullmatch(r"_quoted_(\d+)_", name):
            name = self.quoted[int(match[1])]
        if name not in self.frame:
            valid = ", ".join(map(str, self.frame))
            raise UserError(f"expected a column, got '{name}'{self._meant(name) or ';'} valid: {valid}")
        numbers = as_numbers(self.frame[name])
        return self.frame[name].astype(str) if numbers is None else numbers.rename(name)

    def _meant(self, name: str) -> str:
        """Returns how to write what was probably meant by a name that no column has."""
        odd = [column for column in map(str, self.frame) if not re.fullmatch(r"[\w.]+", column)]
        written = [column for column in odd if name in column and column in self.expression]
        if written:
            return f"; put it in backticks: `{max(written, key=len)}`;"
        return f"; a text is quoted: '{name}';" if self.frame.isin([name]).any(axis=None) else suggest(name, self.frame)


def _is_text(side: Any) -> bool:
    return not pd.api.types.is_numeric_dtype(side.dtype) if isinstance(side, pd.Series) else isinstance(side, str)
