"""Instructions of a hottest loop are counted in a small disassembly, and in that of a kernel of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import nvrtc
from bench.instructions import Loop, disassemble, find_disassembler, hottest_loops
from tests.profiles import DEEP
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.launch import source

HEAD = """
	.section	.text.multiply,"ax",@progbits
.text.multiply:
        /*0000*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
        /*0010*/              @!P0 EXIT ;
.L_x_0:
        /*0020*/                   ISETP.GE.AND P0, PT, R0, R1, PT ;
        /*0030*/               @P0 BRA `(.L_x_1) ;
"""
COPIES = """
        /*0040*/              @!P1 BRA `(.L_x_2) ;
        /*0050*/                   LDGSTS.E.BYPASS.128 [R21+0x4000], desc[UR14][R14.64] ;
        /*0060*/                   LDGSTS.E.BYPASS.128 [R21+0x4800], desc[UR14][R12.64] ;
        /*0070*/                   BRA `(.L_x_1) ;
.L_x_2:
        /*0080*/                   LDGSTS.E.BYPASS.128 [R23], desc[UR14][R14.64], !P2 ;
        /*0090*/              @!P2 BRA `(.L_x_2) ;
.L_x_1:
"""
PRODUCTS = """
        /*00a0*/                   LDGDEPBAR ;
        /*00b0*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
        /*00c0*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
        /*00d0*/                   BRA.U !UP0, `(.L_x_3) ;
        /*00e0*/                   FSEL R4, R4, R9, P3 ;
        /*00f0*/                   FSEL R5, R5, R9, P3 ;
.L_x_3:
        /*0100*/                   MUFU.EX2 R4, R4 ;
        /*0110*/               @P4 BRA `(.L_x_0) ;
        /*0120*/                   EXIT ;
.L_x_4:
        /*0130*/                   BRA `(.L_x_4);
"""


def test_a_loop_is_counted_as_a_whole_and_on_the_way_with_its_products_and_most_copies():
    found = hottest_loops(HEAD + COPIES + PRODUCTS)
    assert found == {"multiply": Loop(instructions=16, executed=12, products=2)}


def test_of_two_loops_with_the_same_products_the_inner_one_is_counted():
    inner = ".L_x_5:\n        /*00a8*/                   IADD3 R1, R1, 0x1, RZ ;\n"
    back = "        /*0108*/               @P5 BRA `(.L_x_5) ;\n        /*0110*/"
    text = HEAD + COPIES + inner + PRODUCTS.replace("        /*0110*/", back)
    assert hottest_loops(text) == {"multiply": Loop(instructions=9, executed=7, products=2)}


def test_no_way_goes_on_behind_an_exit_or_a_branch_without_a_condition():
    for end in ("EXIT", "BRA `(.L_x_4)"):
        words = "@P6 BRA `(.L_x_7)", "LDGSTS.E [R1], [R2]", end
        dead = "".join(f"        /*00a0*/                   {each} ;\n" for each in words)
        found = hottest_loops(HEAD + COPIES + dead + ".L_x_7:" + PRODUCTS)
        assert found == {"multiply": Loop(instructions=19, executed=13, products=2)}


def test_the_products_of_four_warps_count_too_and_those_that_are_not_in_a_loop_do_not():
    assert hottest_loops((HEAD + COPIES + PRODUCTS).replace("HMMA", "HGMMA"))["multiply"].products == 2
    assert hottest_loops(HEAD + COPIES + ".L_x_6:\n        /*00a0*/               @P4 BRA `(.L_x_0) ;\n") == {}
    assert hottest_loops(HEAD + ".L_x_1:\n        /*0040*/                   EXIT ;\n") == {}


def test_each_kernel_has_labels_and_loops_of_its_own():
    text = HEAD + COPIES + PRODUCTS
    both = hottest_loops(text + text.replace("multiply", "again").replace(COPIES, ".L_x_1:"))
    assert both == {"multiply": Loop(16, 12, 2), "again": Loop(10, 8, 2)}


def test_a_disassembler_is_found_on_the_path_and_where_it_fails_its_words_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "nvdisasm"
    program.write_text("#!/bin/sh\necho not a cubin: $1 >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_disassembler() == str(program)
    monkeypatch.undo()
    with pytest.raises(BackendError, match=r"^nvdisasm refuses it: not a cubin: --print-code$"):
        disassemble(b"", str(program))


@DEEP
@pytest.mark.skipif(not (nvrtc.is_installed() and find_disassembler()), reason="no extra nvrtc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_products_of_flash_attention_are_those_of_its_tiles(architecture: str):
    cubin, _ = nvrtc.compile_cubin(source("flash_attention_64.cu"), None, architecture)
    loops = hottest_loops(disassemble(cubin, find_disassembler() or ""))
    pairs = {
        "flash_attention": 2 * 128 * 64,
        "flash_backward_keys": 4 * 64 * 64,
        "flash_backward_queries": 3 * 128 * 32,
    }
    products = {name: sums * 64 // (16 * 8 * 16) // 4 for name, sums in pairs.items()}  # of one of four warps
    assert {name: loop.products for name, loop in loops.items()} == products
    assert all(loop.products < loop.executed < loop.instructions for loop in loops.values())
