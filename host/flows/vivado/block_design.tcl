# The block design: processing system, clock, resets and the packaged accelerator; build.tcl runs
# it. Not run on a board so far.
#
# Registers are behind HPM0, memory port n goes to HPn: DRAM without the CPU's caches. One clock
# drives all of it. IP is taken in the newest version that this Vivado has.

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]

proc newest {vlnv} {
    set found [lsort -dictionary [get_ipdefs $vlnv:*]]
    if {$found eq ""} {
        error "this Vivado has no IP $vlnv: install support for Zynq UltraScale+"
    }
    return [lindex $found end]
}

proc cell {name vlnv} {
    return [create_bd_cell -type ip -vlnv [newest $vlnv] $name]
}

# One net over all the pins.
proc wire {args} {
    connect_bd_net {*}[lmap pin $args {get_bd_pins $pin}]
}

proc link {master slave} {
    connect_bd_intf_net [get_bd_intf_pins $master] [get_bd_intf_pins $slave]
}

create_project -force -part $part $name [file join $here vivado project]
set boards [lsort -dictionary [get_board_parts -quiet $board_part]]
if {$boards ne ""} {
    set_property board_part [lindex $boards end] [current_project]
} else {
    # The boot firmware sets up DRAM and pins on this board: they matter to a new boot image only.
    puts "WARNING: no board files $board_part: the PS keeps its default DRAM and pin settings"
}
set_property ip_repo_paths [list [file join $here vivado ip]] [current_project]
update_ip_catalog
create_bd_design $name

# Processing system. S_AXI_HPn_FPD is slave port n + 2, M_AXI_HPM0_FPD is master port 0.
set ps [cell ps xilinx.com:ip:zynq_ultra_ps_e]
if {$boards ne ""} {
    apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e \
        -config {apply_board_preset "1"} $ps
}
set settings [list \
    CONFIG.PSU__USE__M_AXI_GP0 1 \
    CONFIG.PSU__MAXIGP0__DATA_WIDTH 32 \
    CONFIG.PSU__USE__M_AXI_GP1 0 \
    CONFIG.PSU__USE__M_AXI_GP2 0 \
    CONFIG.PSU__USE__IRQ0 1 \
    CONFIG.PSU__FPGA_PL0_ENABLE 1 \
    CONFIG.PSU__USE__FABRIC__RST 1 \
    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $reference_mhz]
for {set n 0} {$n < 4} {incr n} {
    set gp [expr {$n + 2}]
    if {$n < [llength $memory_ports]} {
        lappend settings CONFIG.PSU__USE__S_AXI_GP$gp 1
        lappend settings CONFIG.PSU__SAXIGP${gp}__DATA_WIDTH $hp_bits
    } else {
        lappend settings CONFIG.PSU__USE__S_AXI_GP$gp 0
    }
}
set_property -dict $settings $ps

# Clock and resets.
set clock [cell clock xilinx.com:ip:clk_wiz]
set_property -dict [list \
    CONFIG.PRIM_SOURCE No_buffer \
    CONFIG.PRIM_IN_FREQ [get_property CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ $ps] \
    CONFIG.CLKOUT1_REQUESTED_OUT_FREQ $clock_mhz \
    CONFIG.USE_LOCKED true \
    CONFIG.USE_RESET true \
    CONFIG.RESET_TYPE ACTIVE_LOW \
    CONFIG.RESET_PORT resetn] $clock
cell reset xilinx.com:ip:proc_sys_reset
wire ps/pl_clk0 clock/clk_in1
wire ps/pl_resetn0 clock/resetn reset/ext_reset_in
wire clock/locked reset/dcm_locked

# The accelerator, its registers and its interrupt.
cell accelerator terntable:user:$ip_name
set control [cell control xilinx.com:ip:smartconnect]
set_property -dict {CONFIG.NUM_SI 1 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 1} $control
link ps/M_AXI_HPM0_FPD control/S00_AXI
link control/M00_AXI accelerator/s_axi_control
wire accelerator/interrupt ps/pl_ps_irq0
set clocked {reset/slowest_sync_clk ps/maxihpm0_fpd_aclk control/aclk accelerator/aclk}
set reset_pins {accelerator/aresetn control/aresetn}

# Memory. A port wider than the PS has needs a converter.
set n 0
foreach port $memory_ports {
    if {$bus_bits == $hp_bits} {
        link accelerator/$port ps/S_AXI_HP${n}_FPD
    } else {
        set converter [cell memory$n xilinx.com:ip:smartconnect]
        set_property -dict {CONFIG.NUM_SI 1 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 1} $converter
        link accelerator/$port memory$n/S00_AXI
        link memory$n/M00_AXI ps/S_AXI_HP${n}_FPD
        lappend clocked memory$n/aclk
        lappend reset_pins memory$n/aresetn
    }
    lappend clocked ps/saxihp${n}_fpd_aclk
    incr n
}
wire clock/clk_out1 {*}$clocked
wire reset/peripheral_aresetn {*}$reset_pins

# Addresses: the registers where the device tree has them, and DRAM alone for the memory ports.
assign_bd_address -force -offset $registers -range 4K \
    -target_address_space [get_bd_addr_spaces ps/Data] \
    [get_bd_addr_segs -of_objects [get_bd_intf_pins accelerator/s_axi_control]]
set n 0
foreach port $memory_ports {
    set space [get_bd_addr_spaces accelerator/$port]
    set slave SAXIGP[expr {$n + 2}]
    assign_bd_address -force -target_address_space $space [get_bd_addr_segs ps/$slave/HP${n}_DDR_LOW]
    # There where the board's preset says that the board has more than 2 GiB.
    set high [get_bd_addr_segs -quiet ps/$slave/HP${n}_DDR_HIGH]
    if {$high ne ""} {
        assign_bd_address -force -target_address_space $space $high
    }
    incr n
}

validate_bd_design
save_bd_design
set actual [get_property CONFIG.FREQ_HZ [get_bd_pins clock/clk_out1]]
puts "the accelerator's clock is $actual Hz"
