"""A small accelerator with the pins and registers of the real one, for tests of the simulator.

A call reads one command of 64 bytes at PROGRAM: op, source, destination, bursts, beats of a burst,
bytes between the sources of two ports. op 1 copies through port 0; op 2 reads on all ports at
once; op 3 never ends; op 4 copies too, and breaks the AXI protocol: in the way that the last field
names, one of BREAKS. CYCLES counts from the first command word to the last beat.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np

from terntable.hw import regs
from terntable.hw.config import AcceleratorConfig, load_config

COPY, READ, HANG, BREAK = 1, 2, 3, 4
BREAKS = ("changing address", "no last", "changing data", "unasked data", "withdrawn address")
PROGRAM_AT, INPUT_AT = 64, 4096


def config(ports: int = 1, bus_bits: int = 128, clock_hz: int = 250_000_000) -> AcceleratorConfig:
    values = load_config("test").model_dump()
    values |= {"ports": ports, "bus_bits": bus_bits, "clock_hz": clock_hz, "burst_beats": 16}
    return AcceleratorConfig.model_validate(values)


def image(of: AcceleratorConfig, size: int) -> SimpleNamespace:
    """An image of `size` bytes with a program and run-time regions only."""
    return SimpleNamespace(
        config=of, data=np.zeros(INPUT_AT, np.uint8), size=size, program=PROGRAM_AT,
        write_base=INPUT_AT, context=of.max_context, check=lambda: None,
    )  # fmt: skip


def command(
    op: int, source: int = 0, to: int = 0, bursts: int = 1, beats: int = 1, stride: int = 0
) -> bytes:
    return struct.pack("<6I40x", op, source, to, bursts, beats, stride)


def verilog(of: AcceleratorConfig) -> str:
    p, w = of.ports, of.bus_bits
    size = (w // 8).bit_length() - 1
    a = regs.ADDRESS
    pins = []
    for n in range(p):
        for channel, fields in {"ar": "output", "aw": "output"}.items():
            pins += [f"{fields} [0:0] m_axi{n}_{channel}id",
                     f"{fields} [39:0] m_axi{n}_{channel}addr",
                     f"{fields} [7:0] m_axi{n}_{channel}len",
                     f"{fields} [2:0] m_axi{n}_{channel}size",
                     f"{fields} [1:0] m_axi{n}_{channel}burst",
                     f"{fields} m_axi{n}_{channel}valid",
                     f"input m_axi{n}_{channel}ready"]  # fmt: skip
        pins += [f"input [0:0] m_axi{n}_rid", f"input [{w - 1}:0] m_axi{n}_rdata",
                 f"input [1:0] m_axi{n}_rresp", f"input m_axi{n}_rlast", f"input m_axi{n}_rvalid",
                 f"output m_axi{n}_rready", f"output [{w - 1}:0] m_axi{n}_wdata",
                 f"output [{w // 8 - 1}:0] m_axi{n}_wstrb", f"output m_axi{n}_wlast",
                 f"output m_axi{n}_wvalid", f"input m_axi{n}_wready", f"input [0:0] m_axi{n}_bid",
                 f"input [1:0] m_axi{n}_bresp", f"input m_axi{n}_bvalid",
                 f"output m_axi{n}_bready"]  # fmt: skip
    ports = "".join(_port(n, w, size) for n in range(p))
    return f"""
module terntable(
  input aclk, input aresetn, output irq,
  input [7:0] s_axil_awaddr, input [2:0] s_axil_awprot, input s_axil_awvalid,
  output s_axil_awready, input [31:0] s_axil_wdata, input [3:0] s_axil_wstrb,
  input s_axil_wvalid, output s_axil_wready, output [1:0] s_axil_bresp, output reg s_axil_bvalid,
  input s_axil_bready, input [7:0] s_axil_araddr, input [2:0] s_axil_arprot,
  input s_axil_arvalid, output s_axil_arready, output reg [31:0] s_axil_rdata,
  output [1:0] s_axil_rresp, output reg s_axil_rvalid, input s_axil_rready,
  {", ".join(pins)});
  localparam W = {w}, P = {p};
  reg [31:0] file [0:63];
  reg [511:0] command;
  reg busy, done, error, fetching;
  reg [7:0] code;
  reg [31:0] cycles, reads, writes, error_at;
  wire [31:0] op = command[31:0], source = command[63:32], to = command[95:64],
    bursts = command[127:96], beats = command[159:128], stride = command[191:160];
  wire [2:0] breaks = op == {BREAK} ? stride + 1 : 0;
  wire [39:0] base = {{file[{a["BASE_HI"] // 4}][7:0], file[{a["BASE_LO"] // 4}]}};

  // Control port: one access at a time.
  assign s_axil_bresp = 0, s_axil_rresp = 0;
  wire writing = s_axil_awvalid && s_axil_wvalid && !s_axil_bvalid;
  assign s_axil_awready = writing, s_axil_wready = writing;
  assign s_axil_arready = s_axil_arvalid && !s_axil_rvalid;
  wire control = writing && s_axil_awaddr == {a["CONTROL"]};
  always @(posedge aclk) begin
    if (s_axil_bready) s_axil_bvalid <= 0;
    if (s_axil_rready) s_axil_rvalid <= 0;
    if (writing) begin
      s_axil_bvalid <= 1;
      file[s_axil_awaddr[7:2]] <= s_axil_wdata;
    end
    if (s_axil_arready) begin
      s_axil_rvalid <= 1;
      case (s_axil_araddr)
        {a["MAGIC"]}: s_axil_rdata <= {regs.MAGIC};
        {a["VERSION"]}: s_axil_rdata <= {regs.VERSION};
        {a["CONFIG_HASH"]}: s_axil_rdata <= 32'd{of.hash};
        {a["STATUS"]}: s_axil_rdata <= {{error, done, busy}};
        {a["ERROR_CODE"]}: s_axil_rdata <= code;
        {a["ERROR_UNIT"]}: s_axil_rdata <= 2;
        {a["ERROR_ADDRESS"]}: s_axil_rdata <= error_at;
        {a["ERROR_COMMAND"]}: s_axil_rdata <= 7;
        {a["ARGMAX"]}: s_axil_rdata <= file[{a["TOKENS"] // 4}];
        {a["ARGMAX_LOGIT"]}: s_axil_rdata <= 32'h40490fdb;
        {a["CYCLES"]}: s_axil_rdata <= cycles;
        {a["READ_BEATS"]}: s_axil_rdata <= reads;
        {a["WRITE_BEATS"]}: s_axil_rdata <= writes;
        {a["UNIT_STATE"]}: s_axil_rdata <= busy ? 2 : 0;
        default: s_axil_rdata <= file[s_axil_araddr[7:2]];
      endcase
    end
    if (busy && breaks == 4 && cycles == 50) s_axil_rvalid <= 1;
    if (!aresetn) begin s_axil_bvalid <= 0; s_axil_rvalid <= 0; end
  end

  // Command fetch on port 0, then the transfer on all ports.
  localparam WORDS = 512 / W;
  reg [15:0] word;
  reg run;
  wire [P-1:0] finished;
  wire [P-1:0] bad;
  wire idle = &finished;
  wire fetch_beat = fetching && m_axi0_rvalid;
  assign irq = done && file[{a["IRQ_ENABLE"] // 4}][0];
  always @(posedge aclk) begin
    run <= 0;
    if (control && s_axil_wdata[1]) begin done <= 0; error <= 0; code <= 0; end
    if (control && s_axil_wdata[0]) begin busy <= 1; fetching <= 1; word <= 0; end
    if (fetch_beat) begin
      command <= {{m_axi0_rdata, command[511:W]}};
      word <= word + 1;
      if (word == WORDS - 1) begin fetching <= 0; run <= 1; cycles <= 0; end
    end
    if (busy && !fetching) cycles <= cycles + 1;
    if (|bad) begin error <= 1; code <= 4; error_at <= source; end
    if (busy && !fetching && !run && idle && op != {HANG}) begin busy <= 0; done <= 1; end
    if ((control && s_axil_wdata[2]) || !aresetn) begin
      busy <= 0; done <= 0; error <= 0; fetching <= 0;
    end
    if (!aresetn) begin code <= 0; reads <= 0; writes <= 0; end
    else begin
      reads <= reads + {" + ".join(f"(m_axi{n}_rvalid && m_axi{n}_rready)" for n in range(p))};
      writes <= writes + (m_axi0_wvalid && m_axi0_wready);
    end
  end
{ports}
endmodule
"""


def _port(n: int, w: int, size: int) -> str:
    copy = "op == 1 || op == 4" if n == 0 else "1'b0"
    start = "(run && (op == 2 || op == 1 || op == 4))" if n == 0 else "(run && op == 2)"
    fetch = "fetching" if n == 0 else "1'b0"
    program = "file[" + str(regs.ADDRESS["PROGRAM"] // 4) + "]"
    return f"""
  reg [31:0] asked{n}, got{n}, sent{n}, put{n}, acked{n}, out{n}, fetch_asked{n};
  reg active{n}, ar{n}, aw{n};
  reg [{w - 1}:0] fifo{n} [0:511];
  wire copy{n} = {copy};
  wire last_got{n} = got{n} == bursts * beats;
  assign finished[{n}] = !active{n} || (last_got{n} && (!copy{n} || acked{n} == bursts));
  assign m_axi{n}_arid = 0, m_axi{n}_awid = 0;
  assign m_axi{n}_arsize = {size}, m_axi{n}_awsize = {size}, m_axi{n}_arburst = 1,
    m_axi{n}_awburst = 1;
  assign m_axi{n}_araddr = base + ({fetch} ? {program}
    : source + {n} * stride + asked{n} * beats * {w // 8});
  assign m_axi{n}_arlen = {fetch} ? {512 // w - 1}
    : beats - 1 + (breaks == 1 && cycles[0]);
  // A copy asks only for what the FIFO can take.
  assign m_axi{n}_arvalid = ({fetch} && !fetch_asked{n}[0]) || (active{n} && asked{n} != bursts &&
    !(breaks == 5 && cycles[0]) && (!copy{n} || asked{n} * beats + beats - put{n} <= 512));
  assign m_axi{n}_rready = 1;
  assign m_axi{n}_awaddr = base + to + out{n} * beats * {w // 8}, m_axi{n}_awlen = beats - 1;
  assign m_axi{n}_awvalid = active{n} && copy{n} && out{n} != bursts && asked{n} > out{n};
  assign m_axi{n}_wdata = fifo{n}[put{n}[8:0]] ^ (breaks == 3 && cycles[0]);
  assign m_axi{n}_wstrb = {{{w // 8}{{1'b1}}}};
  assign m_axi{n}_wvalid = active{n} && copy{n} && put{n} != got{n};
  assign m_axi{n}_wlast = sent{n} == beats - 1 && breaks != 2;
  assign m_axi{n}_bready = 1;
  assign bad[{n}] = (m_axi{n}_rvalid && m_axi{n}_rresp != 0) ||
    (m_axi{n}_bvalid && m_axi{n}_bresp != 0);
  always @(posedge aclk) begin
    if (!{fetch}) fetch_asked{n} <= 0;
    else if (m_axi{n}_arvalid && m_axi{n}_arready) fetch_asked{n} <= 1;
    if ({start}) begin
      active{n} <= 1; asked{n} <= 0; got{n} <= 0; sent{n} <= 0; put{n} <= 0; acked{n} <= 0;
      out{n} <= 0;
    end else if (active{n}) begin
      if (m_axi{n}_arvalid && m_axi{n}_arready) asked{n} <= asked{n} + 1;
      if (m_axi{n}_rvalid) begin got{n} <= got{n} + 1; fifo{n}[got{n}[8:0]] <= m_axi{n}_rdata; end
      if (m_axi{n}_awvalid && m_axi{n}_awready) out{n} <= out{n} + 1;
      if (m_axi{n}_wvalid && m_axi{n}_wready) begin
        put{n} <= put{n} + 1;
        sent{n} <= m_axi{n}_wlast ? 0 : sent{n} + 1;
      end
      if (m_axi{n}_bvalid) acked{n} <= acked{n} + 1;
      if (finished[{n}]) active{n} <= 0;
    end
    if (!aresetn) active{n} <= 0;
  end
"""
