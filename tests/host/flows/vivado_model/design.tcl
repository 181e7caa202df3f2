# Block designs: IP with its properties, pins and interfaces (PG201, PG065, PG164, PG247), nets,
# addresses, and what validate_bd_design refuses.

namespace eval vivado {
    variable valid 0
    variable ips {}
    variable design ""
    variable nets {}       ;# by pin: the number of its net
    variable links {}      ;# by interface: the other end
    variable mapped {}     ;# by segment and space: offset and range
    variable next 0
}

# An IP: its properties (name, pattern, default). Pins and interfaces come from a procedure of its
# name, since they depend on the properties.
proc vivado::ip {vlnv properties} {
    variable ips
    dict set ips $vlnv $properties
}

# Older versions are there too: the scripts are to take the newest.
vivado::ip xilinx.com:ip:zynq_ultra_ps_e:3.5 [concat {
    PSU__USE__M_AXI_GP0 [01] 1 PSU__USE__M_AXI_GP1 [01] 1 PSU__USE__M_AXI_GP2 [01] 0
    PSU__MAXIGP0__DATA_WIDTH (32|64|128) 128 PSU__MAXIGP1__DATA_WIDTH (32|64|128) 128
    PSU__USE__IRQ0 [01] 1 PSU__USE__IRQ1 [01] 0 PSU__FPGA_PL0_ENABLE [01] 1
    PSU__USE__FABRIC__RST [01] 1 PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ {[\d.]+} 100
    PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ read-only 99.999001
} [concat {*}[lmap gp {0 1 2 3 4 5 6} {
    list PSU__USE__S_AXI_GP$gp {[01]} 0 PSU__SAXIGP${gp}__DATA_WIDTH (32|64|128) 128
}]]]
vivado::ip xilinx.com:ip:zynq_ultra_ps_e:3.10 [dict get $vivado::ips xilinx.com:ip:zynq_ultra_ps_e:3.5]
vivado::ip xilinx.com:ip:clk_wiz:6.0 {
    PRIM_SOURCE (Single_ended_clock_capable_pin|Differential_clock_capable_pin|Global_buffer|No_buffer)
    Single_ended_clock_capable_pin
    PRIM_IN_FREQ {[\d.]+} 100.000 CLKOUT1_REQUESTED_OUT_FREQ {[\d.]+} 100.000
    USE_LOCKED (true|false) true USE_RESET (true|false) true
    RESET_TYPE (ACTIVE_HIGH|ACTIVE_LOW) ACTIVE_HIGH RESET_PORT (reset|resetn) reset
}
vivado::ip xilinx.com:ip:proc_sys_reset:5.0 {C_EXT_RST_WIDTH {\d+} 4 C_NUM_PERP_ARESETN {\d+} 1}
vivado::ip xilinx.com:ip:smartconnect:1.0 {NUM_SI {\d+} 2 NUM_MI {\d+} 1 NUM_CLKS {\d+} 1}

vivado::kind bd_design {}
vivado::kind pin {CONFIG.FREQ_HZ read-only}
vivado::kind intf {CONFIG.DATA_WIDTH read-only}
vivado::kind space {}
vivado::kind segment {}

proc vivado::pin {cell name direction type {needed 1}} {
    create pin $cell/$name [list direction $direction type $type needed $needed]
}
proc vivado::intf {cell name mode protocol bits clock} {
    create intf $cell/$name [list mode $mode protocol $protocol bits $bits clock $cell/$clock]
}
proc vivado::config {cell name} {
    return [value [cell_of $cell] CONFIG.$name]
}
proc vivado::cell_of {name} {
    return [lindex [matching cell* $name] 0]
}

proc vivado::pins_of_zynq_ultra_ps_e {cell} {
    if {[config $cell PSU__FPGA_PL0_ENABLE]} {pin $cell pl_clk0 out clk}
    if {[config $cell PSU__USE__FABRIC__RST]} {pin $cell pl_resetn0 out resetn}
    if {[config $cell PSU__USE__IRQ0]} {pin $cell pl_ps_irq0 in irq}
    foreach {gp port clock} {0 HPM0_FPD maxihpm0_fpd_aclk 1 HPM1_FPD maxihpm1_fpd_aclk} {
        if {[config $cell PSU__USE__M_AXI_GP$gp]} {
            pin $cell $clock in clk
            intf $cell M_AXI_$port master AXI4 [config $cell PSU__MAXIGP${gp}__DATA_WIDTH] $clock
        }
    }
    if {[config $cell PSU__USE__M_AXI_GP2]} {
        pin $cell maxihpm0_lpd_aclk in clk
    }
    create space $cell/Data
    for {set n 0} {$n < 4} {incr n} {
        set gp [expr {$n + 2}]
        if {[config $cell PSU__USE__S_AXI_GP$gp]} {
            pin $cell saxihp${n}_fpd_aclk in clk
            intf $cell S_AXI_HP${n}_FPD slave AXI4 [config $cell PSU__SAXIGP${gp}__DATA_WIDTH] \
                saxihp${n}_fpd_aclk
            set slave [list interface $cell/S_AXI_HP${n}_FPD]
            create segment $cell/SAXIGP$gp/HP${n}_DDR_LOW [list {*}$slave offset 0 range 0x80000000]
            create segment $cell/SAXIGP$gp/HP${n}_QSPI [list {*}$slave offset 0xC0000000 range 0x20000000]
            if {[value [cell_of $cell] preset 0]} {
                create segment $cell/SAXIGP$gp/HP${n}_DDR_HIGH \
                    [list {*}$slave offset 0x800000000 range 0x80000000]
            }
        }
    }
}
proc vivado::pins_of_clk_wiz {cell} {
    pin $cell clk_in1 in clk
    pin $cell clk_out1 out clk
    if {[config $cell USE_LOCKED]} {pin $cell locked out data}
    if {[config $cell USE_RESET]} {
        set type [expr {[config $cell RESET_TYPE] eq "ACTIVE_LOW" ? "resetn" : "reset"}]
        pin $cell $type in $type
    }
}
proc vivado::pins_of_proc_sys_reset {cell} {
    pin $cell slowest_sync_clk in clk
    pin $cell ext_reset_in in resetn
    pin $cell dcm_locked in data
    pin $cell aux_reset_in in resetn 0
    pin $cell mb_debug_sys_rst in reset 0
    foreach name {mb_reset bus_struct_reset peripheral_reset} {pin $cell $name out reset}
    foreach name {interconnect_aresetn peripheral_aresetn} {pin $cell $name out resetn}
}
proc vivado::pins_of_smartconnect {cell} {
    pin $cell aclk in clk
    pin $cell aresetn in resetn
    foreach {side count mode} {S NUM_SI slave M NUM_MI master} {
        for {set n 0} {$n < [config $cell $count]} {incr n} {
            intf $cell [format %s%02d_AXI $side $n] $mode any any aclk
        }
    }
}
proc vivado::pins_of_packaged {cell ip} {
    dict for {name interface} [dict get $ip interfaces] {
        switch [dict get $interface bus] {
            aximm {
                intf $cell $name [dict get $interface mode] [dict get $interface protocol] \
                    [dict get $interface bits] [dict get $interface clock]
                if {[dict get $interface mode] eq "master"} {
                    create space $cell/$name
                } else {
                    create segment $cell/$name/reg0 \
                        [list interface $cell/$name range [dict get $ip range]]
                }
            }
            clock {pin $cell $name in clk}
            reset {pin $cell $name in resetn}
            interrupt {pin $cell $name out irq}
        }
    }
}
proc vivado::remake {cell} {
    set name [name $cell]
    foreach kind {pin intf segment} {
        array unset vivado::properties $kind@$name/*
    }
    set vlnv [value $cell vlnv]
    if {[dict exists $vivado::catalog $vlnv]} {
        pins_of_packaged $name [dict get $vivado::catalog $vlnv]
    } else {
        pins_of_[lindex [split $vlnv :] 2] $name
    }
}

vivado::command create_bd_design {-cell} {-dir} 1 1 {
    set vivado::design [vivado::create bd_design [lindex $rest 0]]
}
vivado::command create_bd_cell {} {-type -vlnv -reference} 1 1 {
    if {[dict get $opt -type] ne "ip" || $vivado::design eq ""} {
        error "ERROR: \[BD 5-216\] no design is open, or type '[dict get $opt -type]'"
    }
    set vlnv [dict get $opt -vlnv]
    vivado::need ipdef ipdef@$vlnv
    set kind cell_[string map {: _ . _} $vlnv]
    set name [lindex $rest 0]
    if {[vivado::cell_of $name] ne ""} {
        error "ERROR: \[BD 5-3\] cell '$name' exists"
    }
    set patterns {}
    set values [list vlnv $vlnv]
    if {[dict exists $vivado::ips $vlnv]} {
        foreach {property pattern default} [dict get $vivado::ips $vlnv] {
            lappend patterns CONFIG.$property $pattern
            lappend values CONFIG.$property $default
        }
    }
    vivado::kind $kind $patterns
    set cell [vivado::create $kind $name $values]
    vivado::remake $cell
    return $cell
}
# Properties change pins: until something is connected they are made again.
trace add execution set_property leave vivado::after_set
proc vivado::after_set {command code result operation} {
    foreach cell [matching cell* *] {
        if {$code == 0 && [lindex $command end] eq $cell} {
            remake $cell
        }
    }
}
vivado::command apply_bd_automation {} {-rule -config} 1 1 {
    if {[dict get $opt -rule] ne "xilinx.com:bd_rule:zynq_ultra_ps_e"
            || [dict keys [dict get $opt -config]] ne "apply_board_preset"} {
        error "ERROR: \[BD 5-425\] rule or configuration is not known: $opt"
    }
    vivado::need cell_xilinx_com_ip_zynq_ultra_ps_e* [lindex $rest 0]
    dict set vivado::properties([lindex $rest 0]) preset 1
}
foreach {query kind} {pins pin intf_pins intf addr_spaces space} {
    vivado::command get_bd_$query {-regexp -hierarchical} {-filter -of_objects} 0 1 [string map "KIND $kind" {
        return [vivado::found [vivado::matching KIND [lindex $rest 0]] $opt [lindex $rest 0]]
    }]
}
vivado::command get_bd_addr_segs {-regexp -hierarchical -excluded -addressed -unaddressed} {-filter -of_objects} 0 1 {
    if {[dict exists $opt -of_objects]} {
        set interface [vivado::name [vivado::need intf [dict get $opt -of_objects]]]
        return [vivado::found [vivado::matching segment $interface/*] $opt $interface]
    }
    return [vivado::found [vivado::matching segment [lindex $rest 0]] $opt [lindex $rest 0]]
}

vivado::command connect_bd_net {-boundary_type} {-net} 2 99 {
    set numbers {}
    foreach pin $rest {
        set name [vivado::name [vivado::need pin $pin]]
        if {[dict exists $vivado::nets $name]} {
            lappend numbers [dict get $vivado::nets $name]
        }
    }
    set numbers [lsort -unique -integer $numbers]
    if {[llength $numbers] > 1} {
        error "ERROR: \[BD 41-759\] two nets meet in $rest"
    }
    set net [expr {$numbers eq "" ? [incr vivado::next] : $numbers}]
    foreach pin $rest {
        dict set vivado::nets [vivado::name $pin] $net
    }
    set drivers {}
    set types {}
    dict for {name number} $vivado::nets {
        if {$number == $net} {
            lappend types [vivado::value pin@$name type]
            if {[vivado::value pin@$name direction] eq "out"} {lappend drivers $name}
        }
    }
    if {[llength $drivers] != 1} {
        error "ERROR: \[BD 41-1306\] a net needs one driver, this one has: $drivers"
    }
    if {[llength [lsort -unique $types]] > 1} {
        error "ERROR: \[BD 41-1628\] types of pins differ: $types in $rest"
    }
}
vivado::command connect_bd_intf_net {-auto_lock} {-intf_net} 2 2 {
    lassign $rest master slave
    foreach {interface mode} [list $master master $slave slave] {
        set name [vivado::name [vivado::need intf $interface]]
        if {[vivado::value $interface mode] ne $mode || [dict exists $vivado::links $name]} {
            error "ERROR: \[BD 41-1171\] $name is no free $mode"
        }
    }
    foreach property {protocol bits} {
        set found [list [vivado::value $master $property] [vivado::value $slave $property]]
        if {"any" ni $found && [llength [lsort -unique $found]] > 1} {
            error "ERROR: \[BD 41-237\] $property differs between $master and $slave: $found"
        }
    }
    dict set vivado::links [vivado::name $master] [vivado::name $slave]
    dict set vivado::links [vivado::name $slave] [vivado::name $master]
}

# The slave interfaces that a master reaches.
proc vivado::reached {master} {
    variable links
    set slave [dict get $links $master]
    set cell [lindex [split $slave /] 0]
    if {![string match *:smartconnect:* [value [cell_of $cell] vlnv]]} {
        return [list $slave]
    }
    return [concat {*}[lmap each [matching intf $cell/M*] {reached [name $each]}]]
}

# A size as 4K, 2G or a number.
proc vivado::bytes {text} {
    if {![regexp {^(0x[0-9a-fA-F]+|\d+)([KMG]?)$} $text all number unit]} {
        error "ERROR: \[BD 41-1053\] '$text' is no size"
    }
    return [expr {$number * [dict get {"" 1 K 1024 M 1048576 G 1073741824} $unit]}]
}

vivado::command assign_bd_address {-force -boundary -external} {-target_address_space -offset -range} 0 9 {
    set space [vivado::name [vivado::need space [dict get $opt -target_address_space]]]
    foreach segment $rest {
        vivado::need segment $segment
        set offset [expr {[dict exists $opt -offset] ? [dict get $opt -offset] : [vivado::value $segment offset]}]
        set range [vivado::bytes [expr {[dict exists $opt -range] ? [dict get $opt -range] : [vivado::value $segment range]}]]
        set masters $space
        if {[string match */Data $space]} {
            set masters [string map {/Data /M_AXI_HPM0_FPD} $space]
            if {$offset < 0xA0000000 || $offset + $range > 0xB0000000} {
                error "ERROR: \[BD 41-1356\] $offset is not behind M_AXI_HPM0_FPD"
            }
        }
        if {$offset % $range || $range > [vivado::bytes [vivado::value $segment range]]} {
            error "ERROR: \[BD 41-1075\] $segment: offset $offset, range $range"
        }
        if {[vivado::value $segment interface] ni [vivado::reached $masters]} {
            error "ERROR: \[BD 41-1273\] $segment can't be reached from $space"
        }
        dict set vivado::mapped $space [vivado::name $segment] [list $offset $range]
    }
}
vivado::command validate_bd_design {-force} {-design} 0 0 {
    foreach pin [vivado::matching pin *] {
        if {[vivado::value $pin direction] eq "in" && [vivado::value $pin needed]
                && ![dict exists $vivado::nets [vivado::name $pin]]} {
            error "ERROR: \[BD 41-758\] pin [vivado::name $pin] is not connected"
        }
    }
    foreach interface [vivado::matching intf *] {
        set name [vivado::name $interface]
        if {![dict exists $vivado::links $name]} {
            error "ERROR: \[BD 41-759\] interface $name is not connected"
        }
        set clocks [lmap end [list $name [dict get $vivado::links $name]] {
            dict get $vivado::nets [vivado::value intf@$end clock]
        }]
        if {[lindex $clocks 0] != [lindex $clocks 1]} {
            error "ERROR: \[BD 41-237\] clocks of $name and [dict get $vivado::links $name] differ"
        }
    }
    foreach space [vivado::matching space *] {
        if {![dict exists $vivado::mapped [vivado::name $space]]} {
            error "ERROR: \[BD 41-1356\] nothing is mapped into [vivado::name $space]"
        }
    }
    foreach clock [vivado::matching cell_xilinx_com_ip_clk_wiz* *] {
        dict set vivado::properties(pin@[vivado::name $clock]/clk_out1) CONFIG.FREQ_HZ \
            [expr {round(1e6 * [vivado::value $clock CONFIG.CLKOUT1_REQUESTED_OUT_FREQ]) - 2500}]
    }
    set vivado::valid 1
}
vivado::command save_bd_design {} {} 0 1 {
    set name [vivado::name $vivado::design]
    set directory [vivado::value [current_project] DIRECTORY]
    set channel [open [file join $directory $name.bd] w]
    foreach cell [vivado::matching cell* *] {
        puts $channel [list cell [vivado::name $cell] [vivado::value $cell vlnv]]
        dict for {property value} $vivado::properties($cell) {
            puts $channel [list property [vivado::name $cell] $property $value]
        }
    }
    dict for {pin net} $vivado::nets {puts $channel [list net $net $pin]}
    dict for {from to} $vivado::links {puts $channel [list link $from $to]}
    dict for {space segments} $vivado::mapped {
        dict for {segment place} $segments {puts $channel [list address $space $segment {*}$place]}
    }
    close $channel
    vivado::create file [file join $directory $name.bd]
}
vivado::command make_wrapper {-top -import -force} {-files -fileset} 0 0 {
    set file [vivado::name [vivado::need file [dict get $opt -files]]]
    set wrapper [file rootname $file]_wrapper.v
    close [open $wrapper w]
    return $wrapper
}
