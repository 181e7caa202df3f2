// DSP48E2 as UG579 describes it, for simulation: all but the pattern detector and the wide XOR.
// Selections that UG579 forbids give x, or 0 in a simulator of two states.
`default_nettype none
module DSP48E2 #(
    parameter integer ACASCREG = 1, ADREG = 1, ALUMODEREG = 1, AREG = 1, BCASCREG = 1, BREG = 1,
    parameter integer CARRYINREG = 1, CARRYINSELREG = 1, CREG = 1, DREG = 1, INMODEREG = 1,
    parameter integer MREG = 1, OPMODEREG = 1, PREG = 1,
    parameter A_INPUT = "DIRECT", B_INPUT = "DIRECT", AMULTSEL = "A", BMULTSEL = "B",
    parameter PREADDINSEL = "A", USE_MULT = "MULTIPLY", USE_SIMD = "ONE48",
    parameter [47:0] RND = 48'h0
) (
    input  wire CLK,
    input  wire [29:0] A, ACIN,
    input  wire [17:0] B, BCIN,
    input  wire [47:0] C, PCIN,
    input  wire [26:0] D,
    input  wire [4:0] INMODE,
    input  wire [8:0] OPMODE,
    input  wire [3:0] ALUMODE,
    input  wire CARRYIN, CARRYCASCIN, MULTSIGNIN,
    input  wire [2:0] CARRYINSEL,
    input  wire CEA1, CEA2, CEAD, CEALUMODE, CEB1, CEB2, CEC, CECARRYIN, CECTRL, CED, CEINMODE,
    input  wire CEM, CEP,
    input  wire RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output wire [47:0] P, PCOUT,
    output wire [29:0] ACOUT,
    output wire [17:0] BCOUT
);
    // Registers, each followed by the choice whether it is there.
    reg [29:0] a1_reg = 0, a2_reg = 0;
    reg [17:0] b1_reg = 0, b2_reg = 0;
    reg [47:0] c_reg = 0, p_reg = 0;
    reg [26:0] d_reg = 0, ad_reg = 0;
    reg [4:0] inmode_reg = 0;
    reg [8:0] opmode_reg = 0;
    reg [3:0] alumode_reg = 0;
    reg carryin_reg = 0;
    reg [2:0] carryinsel_reg = 0;
    reg signed [44:0] m_reg = 0;

    wire [29:0] a_in = A_INPUT == "CASCADE" ? ACIN : A;
    wire [17:0] b_in = B_INPUT == "CASCADE" ? BCIN : B;
    wire [29:0] a1 = AREG == 2 ? a1_reg : a_in;
    wire [17:0] b1 = BREG == 2 ? b1_reg : b_in;
    wire [29:0] a2 = AREG == 0 ? a_in : a2_reg;
    wire [17:0] b2 = BREG == 0 ? b_in : b2_reg;
    wire [47:0] c = CREG == 0 ? C : c_reg;
    wire [26:0] d = DREG == 0 ? D : d_reg;
    wire [4:0] inmode = INMODEREG == 0 ? INMODE : inmode_reg;
    wire [8:0] opmode = OPMODEREG == 0 ? OPMODE : opmode_reg;
    wire [3:0] alumode = ALUMODEREG == 0 ? ALUMODE : alumode_reg;
    wire carryin = CARRYINREG == 0 ? CARRYIN : carryin_reg;
    wire [2:0] carryinsel = CARRYINSELREG == 0 ? CARRYINSEL : carryinsel_reg;

    // Pre-adder and multiplier.
    wire [26:0] a_sel = inmode[0] ? a1[26:0] : a2[26:0];
    wire [17:0] b_sel = inmode[4] ? b1 : b2;
    wire [26:0] pre = PREADDINSEL == "A" ? a_sel : {{9{b_sel[17]}}, b_sel};
    wire [26:0] pre_gated = inmode[1] ? 27'd0 : pre;
    wire [26:0] d_gated = inmode[2] ? d : 27'd0;
    wire [26:0] ad_sum = inmode[3] ? d_gated - pre_gated : d_gated + pre_gated;
    wire [26:0] ad = ADREG == 0 ? ad_sum : ad_reg;
    wire [26:0] a_gated = PREADDINSEL == "A" ? pre_gated : a_sel;
    wire [17:0] b_gated = PREADDINSEL == "A" ? b_sel : pre_gated[17:0];
    wire signed [26:0] a_mult = AMULTSEL == "A" ? a_gated : ad;
    wire signed [17:0] b_mult = BMULTSEL == "B" ? b_gated : ad[17:0];
    wire signed [44:0] m_now = a_mult * b_mult;
    wire signed [44:0] m = MREG == 0 ? m_now : m_reg;

    // Operands of the adder.
    reg [47:0] w, x, y, z;
    always @* begin
        case (opmode[8:7])
            2'b00: w = 48'd0;
            2'b01: w = p_reg;
            2'b10: w = RND;
            default: w = c;
        endcase
        case (opmode[1:0])
            2'b00: x = 48'd0;
            2'b01: x = {{3{m[44]}}, m};
            2'b10: x = p_reg;
            default: x = {a2, b2};
        endcase
        case (opmode[3:2])
            2'b00: y = 48'd0;
            2'b01: y = 48'd0; // the product's other half, added in x already
            2'b10: y = {48{1'b1}};
            default: y = c;
        endcase
        case (opmode[6:4])
            3'b000: z = 48'd0;
            3'b001: z = PCIN;
            3'b010: z = p_reg;
            3'b011: z = c;
            3'b100: z = p_reg;
            3'b101: z = {{17{PCIN[47]}}, PCIN[47:17]};
            3'b110: z = {{17{p_reg[47]}}, p_reg[47:17]};
            default: z = 48'bx;
        endcase
    end

    // The adder, cut into lanes.
    localparam integer LANES = USE_SIMD == "FOUR12" ? 4 : USE_SIMD == "TWO24" ? 2 : 1;
    localparam integer WIDTH = 48 / LANES;
    wire [47:0] sum;
    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : simd
            wire [WIDTH-1:0] wl = w[lane*WIDTH +: WIDTH], xl = x[lane*WIDTH +: WIDTH];
            wire [WIDTH-1:0] yl = y[lane*WIDTH +: WIDTH], zl = z[lane*WIDTH +: WIDTH];
            wire cin = carryinsel == 3'b000 ? (lane == 0 ? carryin : 1'b0) : 1'bx;
            wire [WIDTH-1:0] others = wl + xl + yl + {{WIDTH-1{1'b0}}, cin};
            assign sum[lane*WIDTH +: WIDTH] =
                alumode == 4'b0000 ? zl + others :
                alumode == 4'b0001 ? ~zl + others :
                alumode == 4'b0010 ? ~(zl + others) :
                alumode == 4'b0011 ? zl - others : {WIDTH{1'bx}};
        end
    endgenerate

    always @(posedge CLK) begin
        if (RSTA) begin a1_reg <= 0; a2_reg <= 0; end
        else begin if (CEA1) a1_reg <= a_in; if (CEA2) a2_reg <= a1; end
        if (RSTB) begin b1_reg <= 0; b2_reg <= 0; end
        else begin if (CEB1) b1_reg <= b_in; if (CEB2) b2_reg <= b1; end
        if (RSTC) c_reg <= 0; else if (CEC) c_reg <= C;
        if (RSTD) begin d_reg <= 0; ad_reg <= 0; end
        else begin if (CED) d_reg <= D; if (CEAD) ad_reg <= ad_sum; end
        if (RSTINMODE) inmode_reg <= 0; else if (CEINMODE) inmode_reg <= INMODE;
        if (RSTCTRL) begin opmode_reg <= 0; carryinsel_reg <= 0; end
        else if (CECTRL) begin opmode_reg <= OPMODE; carryinsel_reg <= CARRYINSEL; end
        if (RSTALUMODE) alumode_reg <= 0; else if (CEALUMODE) alumode_reg <= ALUMODE;
        if (RSTALLCARRYIN) carryin_reg <= 0; else if (CECARRYIN) carryin_reg <= CARRYIN;
        if (RSTM) m_reg <= 0; else if (CEM) m_reg <= m_now;
        if (RSTP) p_reg <= 0; else if (CEP) p_reg <= sum;
    end

    assign P = PREG == 0 ? sum : p_reg;
    assign PCOUT = P;
    assign ACOUT = ACASCREG == 1 && AREG == 2 ? a1 : a2;
    assign BCOUT = BCASCREG == 1 && BREG == 2 ? b1 : b2;
endmodule
`default_nettype wire
