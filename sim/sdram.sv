// An SDR SDRAM that checks what is done to it, as sim/sdram.py does: for long simulations.
//
// Times are in cycles of `clk`, the controller's; its own is the inverse, so it samples at the
// falling edge. A word that it drives is on the pins from the middle of the cycle in which it would
// be valid at the latest (t_ac and the ways of clock and data) until t_oh after the next edge: that
// is the rising edge before and the one behind. A broken rule stops the simulation with `SDRAM: `
// and the rule. +sdram=FILE fills it at the start, for $readmemh.
module sdram_model #(
  parameter BURST = 2, CAS = 3, RCD = 3, RP = 3, RAS = 5, RC = 7, RRD = 2, WR = 2, MRD = 2,
  parameter REFI = 781, POWER_UP = 20000, REFRESHES = 8,
  parameter BANK_BITS = 2, ROW_BITS = 13, COLUMN_BITS = 9, DATA_BITS = 16
) (
  input clk,
  input cke,
  input [2:0] command,  // RAS#, CAS#, WE#
  input [BANK_BITS-1:0] ba,
  input [ROW_BITS-1:0] a,
  input [DATA_BITS/8-1:0] dqm,
  input [DATA_BITS-1:0] dq_o,  // from the controller
  input dq_oe,
  output reg [DATA_BITS-1:0] dq_i
);
  localparam BANKS = 1 << BANK_BITS;
  localparam AHEAD = 16;  // cycles that the data pins are planned for
  localparam longint NEVER = -64'd1000000;
  localparam LOAD_MODE = 3'd0, REFRESH = 3'd1, PRECHARGE = 3'd2, ACTIVATE = 3'd3, WRITE = 3'd4,
             READ = 3'd5, NOP = 3'd7;

  reg [DATA_BITS-1:0] words [0:(1 << (BANK_BITS + ROW_BITS + COLUMN_BITS))-1] /*verilator public*/;
  reg [BANKS-1:0] open;
  reg [ROW_BITS-1:0] row [0:BANKS-1];
  longint activated [0:BANKS-1];
  longint precharged [0:BANKS-1];
  longint written [0:BANKS-1];   // edge of the last word
  longint read_until [0:BANKS-1];
  longint now = 0, mode_set = NEVER, refreshed = NEVER, started = 0;
  longint refreshes = 0;
  reg precharged_all = 0, ready = 0;
  reg [AHEAD-1:0] driven = 0;      // bit n: a word is driven n edges from now
  reg [DATA_BITS-1:0] plan [0:AHEAD-1];
  reg [DATA_BITS-1:0] next_word;
  reg next_driven = 0;
  longint last_driven = -10;
  reg [DATA_BITS/8-1:0] mask1 = 0, mask2 = 0;
  integer writing = 0;             // words of a write that are to come
  reg [BANK_BITS+ROW_BITS+COLUMN_BITS-1:0] at;
  integer n, b;
  string contents;

  task automatic broken(input string rule);
    $display("SDRAM: cycle %0d, command %0d, bank %0d: %s", now, command, ba, rule);
    $fatal(1);
  endtask

  task automatic wait_for(input longint since, input longint least, input string what);
    if (now - since < least) broken({"too early after ", what});
  endtask

  task automatic closed();
    if (open != 0) broken("a bank is open");
    for (b = 0; b < BANKS; b++) wait_for(precharged[b], RP, "PRECHARGE");
  endtask

  task automatic column();
    if (!ready) broken("the mode is not set");
    if (!open[ba]) broken("the bank is closed");
    wait_for(activated[ba], RCD, "ACTIVATE");
    if (writing != 0) broken("a write is cut short");
    for (n = CAS - 1; n < AHEAD; n++) if (driven[n]) broken("a read is cut short");
    if (a[10]) broken("automatic precharge is not modelled");
    if (a[COLUMN_BITS-1:0] % BURST != 0) broken("the column wraps");
    at = {row[ba], ba, a[COLUMN_BITS-1:0]};
  endtask

  initial begin
    open = 0;
    for (b = 0; b < BANKS; b++) begin
      activated[b] = NEVER; precharged[b] = NEVER; written[b] = NEVER; read_until[b] = NEVER;
    end
    if ($value$plusargs("sdram=%s", contents)) $readmemh(contents, words);
  end

  // A word that was driven at the falling edge is there for the next rising edge but one.
  always @(posedge clk) dq_i <= next_driven ? next_word : ~dq_i;

  always @(negedge clk) begin
    now = now + 1;
    driven = driven >> 1;
    for (n = 0; n < AHEAD - 1; n++) plan[n] = plan[n + 1];
    if (!cke) broken("CKE is low");
    if (command != NOP) begin
      wait_for(0, POWER_UP, "power-up");
      wait_for(mode_set, MRD, "LOAD MODE");
      wait_for(refreshed, RC, "REFRESH");
    end
    case (command)
      LOAD_MODE: begin
        closed();
        if (refreshes < REFRESHES) broken("too few refreshes before");
        if (a != ROW_BITS'(CAS << 4 | $clog2(BURST)) || ba != 0) broken("another mode");
        ready = 1; mode_set = now; started = now; refreshes = 0;
      end
      REFRESH: begin
        if (!precharged_all) broken("no PRECHARGE before");
        closed();
        refreshed = now; refreshes = refreshes + 1;
      end
      PRECHARGE: for (b = 0; b < BANKS; b++)
        if (a[10] || b == ba) begin
          if (open[b]) begin
            wait_for(activated[b], RAS, "ACTIVATE");
            wait_for(written[b], WR, "the last word");
            if (read_until[b] > now) broken("a read is cut short");
          end
          open[b] = 0; precharged[b] = now;
          if (a[10]) precharged_all = 1;
        end
      ACTIVATE: begin
        if (!ready) broken("the mode is not set");
        if (open[ba]) broken("the bank is open");
        wait_for(precharged[ba], RP, "PRECHARGE");
        wait_for(activated[ba], RC, "ACTIVATE");
        for (b = 0; b < BANKS; b++) wait_for(activated[b], RRD, "another bank's ACTIVATE");
        open[ba] = 1; row[ba] = a; activated[ba] = now;
      end
      WRITE: begin
        column();
        writing = BURST; written[ba] = now + BURST - 1;
      end
      READ: begin
        column();
        for (n = 0; n < BURST; n++) begin
          driven[CAS - 1 + n] = 1;
          plan[CAS - 1 + n] = words[at + n];
        end
        read_until[ba] = now + BURST;
      end
      NOP: ;
      default: broken("no command");
    endcase
    if (ready && (now - (refreshed > started ? refreshed : started) > 2 * REFI ||
                  now - started > (refreshes + 2) * REFI)) broken("refreshes are late");
    if (writing != 0) begin
      if (!dq_oe) broken("nobody drives the word that is written");
      for (n = 0; n < DATA_BITS / 8; n++) if (!dqm[n]) words[at][8*n+:8] = dq_o[8*n+:8];
      at = at + 1;
      writing = writing - 1;
    end
    if (dq_oe && (driven[0] || now - last_driven <= 2)) broken("both sides drive DQ");
    next_driven = driven[0];
    next_word = plan[0];
    if (driven[0]) begin
      if (mask2 != 0) broken("DQM masks a word that is read");
      last_driven = now;
    end
    mask2 = mask1;
    mask1 = dqm;
  end
endmodule
