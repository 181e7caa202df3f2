// The far end of a serial line, at a pseudo-terminal of this machine (serial.cpp): eight data bits,
// no parity, one stop bit.
module serial_line #(parameter CLOCK_HZ = 0, parameter BAUD = 0) (
  input clk, input tx, output reg rx);

  import "DPI-C" function void serial_clock(
    input int clock_hz, input int baud, input bit tx, output bit rx);

  bit next;
  initial rx = 1;
  always @(posedge clk) begin
    serial_clock(CLOCK_HZ, BAUD, tx, next);
    rx <= next;
  end
endmodule
