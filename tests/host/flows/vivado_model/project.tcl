# Projects, files, IP packager, runs. The environment variables of the tests:
# STUB_BOARDS, STUB_IPS and STUB_SLACK replace what is installed and what comes out;
# STUB_PACKAGER=bare is one that infers no memory map, STUB_RUN=failed a run that fails.

namespace eval vivado {
    variable project ""
    variable core ""
    variable catalog {}    ;# by VLNV: interfaces and pins of packaged IP
}

proc vivado::setting {name default} {
    return [expr {[info exists ::env(STUB_$name)] ? $::env(STUB_$name) : $default}]
}

vivado::kind project {board_part xilinx.com:.* ip_repo_paths .+ target_language (Verilog|VHDL) DIRECTORY read-only}
vivado::kind fileset {top {\w+}}
vivado::kind file {used_in .*}
vivado::kind core {
    name {\w+} version {\d+\.\d+} display_name .+ description .+ vendor_display_name .+
    company_url .+ core_revision {\d+}
    supported_families {((zynquplus|zynq|kintexuplus) (Production|Pre-Production|Beta) ?)+}
    ipi_drc {ignore_freq_hz (true|false)} auto_family_support_level level_[0-2]
}
vivado::kind bus_interface {slave_memory_map_ref {\w+}}
vivado::kind memory_map {name {\w+}}
vivado::kind address_block {
    name {\w+} base_address .+ range {\d+} width {\d+} usage (register|memory|reserved)
}
vivado::kind run {
    strategy (Performance_Explore|Performance_ExplorePostRoutePhysOpt|Performance_Retiming)
    PROGRESS read-only STATUS read-only DIRECTORY read-only STATS.WNS read-only STATS.WHS read-only
}
vivado::kind design {BITSTREAM.GENERAL.COMPRESS (TRUE|FALSE)}
vivado::kind board_part {}
vivado::kind ipdef {}

vivado::command create_project {-force -in_memory -ip -rtl_kernel} {-part} 0 2 {
    if {[dict get $opt -part] ne "xck26-sfvc784-2LV-c"} {
        error "ERROR: \[Coretcl 2-106\] part '[dict get $opt -part]' is not installed"
    }
    lassign $rest name directory
    if {$vivado::project ne ""} {
        error "ERROR: \[Project 1-6\] project '$vivado::project' is open"
    }
    file mkdir $directory
    array unset vivado::properties file@*
    set vivado::project [vivado::create project $name [list DIRECTORY $directory]]
    foreach set {sources_1 constrs_1} {
        vivado::create fileset $set
    }
    vivado::create run impl_1 [list PROGRESS 0% STATUS "Not started"]
    return $vivado::project
}
vivado::command close_project {-delete} {} 0 0 {
    set vivado::project ""
    set vivado::core ""
}
vivado::command current_project {} {} 0 1 {return [vivado::need project $vivado::project]}
vivado::command current_fileset {-constrset -simset -srcset} {} 0 0 {return fileset@sources_1}
vivado::command current_design {} {} 0 0 {return [vivado::need design design@impl_1]}

vivado::command add_files {-norecurse -force -copy_to} {-fileset} 1 9 {
    foreach file [join $rest] {
        if {![file isfile $file]} {
            error "ERROR: \[Vivado 12-172\] no file '$file'"
        }
        set fileset sources_1
        if {[dict exists $opt -fileset]} {
            set fileset [dict get $opt -fileset]
        }
        vivado::need fileset fileset@$fileset
        vivado::create file $file [list fileset $fileset]
    }
}
vivado::command get_files {-regexp -nocase -all} {-of_objects -filter} 0 1 {
    set files {}
    foreach file [vivado::matching file *] {
        if {[string match [lindex $rest 0] [file tail [vivado::name $file]]]} {
            lappend files $file
        }
    }
    return [vivado::found $files $opt [lindex $rest 0]]
}
vivado::command update_compile_order {-force_gui} {-fileset} 0 0 {
    vivado::need fileset fileset@[dict get $opt -fileset]
}
vivado::command get_board_parts {-regexp -nocase -latest_file_version -latest_hw_revision} {-filter -of_objects} 0 1 {
    set boards {}
    foreach board [vivado::setting BOARDS {xilinx.com:kv260_som:part0:1.4 xilinx.com:kv260_som:part0:1.10}] {
        if {[string match [lindex $rest 0] $board]} {
            lappend boards $board
        }
    }
    return [vivado::found $boards $opt [lindex $rest 0]]
}

# The interfaces that the attributes on the pins of the top module make: name, mode, protocol, bits.
proc vivado::infer {text top} {
    set start [string first "\nmodule $top (\n" $text]
    if {$start < 0} {
        error "ERROR: \[IP_Flow 19-259\] no module '$top'"
    }
    set interfaces {}
    set attributes ""
    foreach line [split [string range $text $start [string first "\n);" $text $start]] \n] {
        if {[string match "*(\\**" $line] && ![regexp {^\s*(input|output)} $line]} {
            append attributes $line
            continue
        }
        if {![regexp {^\s*(input|output) wire (?:\[(\d+):0\] )?(\w+),?$} $line all direction width pin]} {
            continue
        }
        if {![regexp {X_INTERFACE_INFO = "xilinx\.com:(interface|signal):(\w+):1\.0 (\w+) (\w+)"} \
                $attributes all group bus name signal]} {
            error "ERROR: \[IP_Flow 19-5462\] pin $pin: X_INTERFACE_INFO is not understood"
        }
        if {![dict exists $interfaces $name]} {
            dict set interfaces $name [dict create bus $bus protocol AXI4 bits 0 mode slave clock ""]
        }
        if {$signal eq "ARVALID" && $direction eq "output"} {
            dict set interfaces $name mode master
        }
        if {$signal eq "RDATA"} {
            dict set interfaces $name bits [expr {$width + 1}]
        }
        if {[regexp {X_INTERFACE_PARAMETER = "XIL_INTERFACENAME (\w+), ([^"]*)"} $attributes all of parameters]} {
            if {$of ne $name} {
                error "ERROR: \[IP_Flow 19-4728\] pin $pin: parameters of '$of' on '$name'"
            }
            regexp {PROTOCOL (\w+)} $parameters all protocol
            if {$bus eq "aximm"} {
                dict set interfaces $name protocol $protocol
            }
        }
        set attributes ""
    }
    return $interfaces
}

vivado::command ipx::package_project {-import_files -force -generated_files} {
    -root_dir -vendor -library -taxonomy -set_current -module -archive_source_project
} 0 0 {
    set top [vivado::value fileset@sources_1 top]
    set text ""
    foreach file [vivado::matching file *] {
        set channel [open [vivado::name $file]]
        append text \n [read $channel]
        close $channel
    }
    if {![string match /* [dict get $opt -taxonomy]]} {
        error "ERROR: \[IP_Flow 19-3505\] taxonomy '[dict get $opt -taxonomy]'"
    }
    set vivado::core [vivado::create core $top [list \
        vendor [dict get $opt -vendor] library [dict get $opt -library] \
        root [dict get $opt -root_dir] interfaces [vivado::infer $text $top]]]
    dict for {name interface} [vivado::value $vivado::core interfaces] {
        vivado::create bus_interface $name
        if {[dict get $interface mode] eq "slave" && [dict get $interface bus] eq "aximm"
                && [vivado::setting PACKAGER usual] eq "usual"} {
            vivado::create memory_map $name
            vivado::create bus_interface $name [list slave_memory_map_ref $name]
            vivado::create address_block $name/reg0 {range 65536}
        }
    }
}
vivado::command ipx::current_core {} {} 0 1 {return [vivado::need core $vivado::core]}
foreach {query kind} {bus_interfaces bus_interface memory_maps memory_map} {
    vivado::command ipx::get_$query {-regexp -nocase} {-filter -of_objects} 0 1 [string map "KIND $kind" {
        vivado::need core [dict get $opt -of_objects]
        return [vivado::found [vivado::matching KIND [lindex $rest 0]] $opt [lindex $rest 0]]
    }]
}
vivado::command ipx::get_address_blocks {-regexp -nocase} {-filter -of_objects} 0 1 {
    set map [vivado::name [vivado::need memory_map [dict get $opt -of_objects]]]
    return [vivado::found [vivado::matching address_block $map/*] $opt $map]
}
vivado::command ipx::add_memory_map {} {} 2 2 {
    vivado::need core [lindex $rest 1]
    if {[vivado::exists memory_map@[lindex $rest 0]]} {
        error "ERROR: \[IP_Flow 19-332\] memory map [lindex $rest 0] exists"
    }
    return [vivado::create memory_map [lindex $rest 0]]
}
vivado::command ipx::add_address_block {} {} 2 2 {
    set map [vivado::name [vivado::need memory_map [lindex $rest 1]]]
    return [vivado::create address_block $map/[lindex $rest 0]]
}
vivado::command ipx::associate_bus_interfaces {-remove -clear} {-busif -clock -reset} 1 1 {
    vivado::need core [lindex $rest 0]
    foreach option {-busif -clock} {
        vivado::need bus_interface bus_interface@[dict get $opt $option]
    }
    set interfaces [vivado::value $vivado::core interfaces]
    dict set interfaces [dict get $opt -busif] clock [dict get $opt -clock]
    dict set vivado::properties($vivado::core) interfaces $interfaces
}
foreach name {create_xgui_files update_checksums} {
    vivado::command ipx::$name {} {} 1 1 {vivado::need core [lindex $rest 0]}
}
vivado::command ipx::check_integrity {-kernel -xrt} {} 1 1 {
    vivado::need core [lindex $rest 0]
    dict for {name interface} [vivado::value $vivado::core interfaces] {
        if {[dict get $interface bus] eq "aximm" && [dict get $interface clock] eq ""} {
            error "ERROR: \[IP_Flow 19-11770\] interface $name has no clock"
        }
        set map [vivado::value bus_interface@$name slave_memory_map_ref]
        if {[dict get $interface mode] eq "slave" && [dict get $interface bus] eq "aximm"
                && ![vivado::exists memory_map@$map]} {
            error "ERROR: \[IP_Flow 19-1971\] interface $name has no memory map '$map'"
        }
    }
}
vivado::command ipx::save_core {} {} 1 1 {
    set core [vivado::need core [lindex $rest 0]]
    set vlnv [join [list [vivado::value $core vendor] [vivado::value $core library] \
        [vivado::value $core name] [vivado::value $core version]] :]
    set block [vivado::value address_block@s_axi_control/reg0 range]
    dict set vivado::catalog $vlnv [dict create root [vivado::value $core root] \
        interfaces [vivado::value $core interfaces] range $block]
}

vivado::command update_ip_catalog {-rebuild} {-repo_path -add_ip} 0 0 {
    dict for {vlnv ip} $vivado::catalog {
        if {[dict get $ip root] in [vivado::value [current_project] ip_repo_paths]} {
            vivado::create ipdef $vlnv
        }
    }
}
vivado::command get_ipdefs {-regexp -nocase -all} {-filter} 0 1 {
    foreach vlnv [vivado::setting IPS [dict keys $vivado::ips]] {
        vivado::create ipdef $vlnv
    }
    set known {}
    foreach ip [vivado::matching ipdef [lindex $rest 0]] {
        lappend known [vivado::name $ip]
    }
    return [vivado::found $known $opt [lindex $rest 0]]
}

# Runs.
vivado::command get_runs {-regexp -nocase} {-filter -of_objects} 0 1 {
    return [vivado::found [vivado::matching run [lindex $rest 0]] $opt [lindex $rest 0]]
}
vivado::command launch_runs {-force -scripts_only} {-jobs -to_step -dir -host} 1 9 {
    set run [vivado::need run run@[lindex $rest 0]]
    if {[dict get $opt -to_step] ni {opt_design place_design route_design write_bitstream}} {
        error "ERROR: \[Common 17-165\] no step '[dict get $opt -to_step]'"
    }
    if {![string is integer -strict [dict get $opt -jobs]]} {
        error "ERROR: \[Common 17-69\] -jobs takes a number"
    }
    set top [vivado::value fileset@sources_1 top]
    if {[get_files -quiet $top.v] eq "" || !$vivado::valid} {
        error "ERROR: \[Vivado 12-106\] top '$top' is in no file, or the design is not validated"
    }
    vivado::create design impl_1
    foreach file [vivado::matching file *.xdc] {
        source [vivado::name $file]
    }
    set directory [file join [vivado::value [current_project] DIRECTORY] [vivado::name $run]]
    file mkdir $directory
    close [open [file join $directory $top.bit] w]
    lassign [vivado::setting SLACK {0.012 0.01}] setup hold
    set failed [expr {[vivado::setting RUN complete] eq "failed"}]
    set vivado::properties($run) [list strategy [vivado::value $run strategy] DIRECTORY $directory \
        PROGRESS [expr {$failed ? "60%" : "100%"}] STATUS [expr {$failed ? "route_design ERROR" : "done"}] \
        STATS.WNS $setup STATS.WHS $hold]
}
foreach name {wait_on_run open_run} {
    vivado::command $name {} {-timeout -name} 1 1 {vivado::need run run@[lindex $rest 0]}
}
foreach {name flags valued} {
    report_utilization {-hierarchical -append} {-file -hierarchical_depth -pblocks -cells}
    report_timing_summary {-append -report_unconstrained} {-file -max_paths -delay_type}
    report_power -append -file
} {
    vivado::command $name $flags $valued 0 0 {
        vivado::need design design@impl_1
        close [open [dict get $opt -file] w]
    }
}
vivado::command write_hw_platform {-fixed -force -include_bit -minimal -hw} {} 0 1 {
    vivado::need design design@impl_1
    if {[file extension [lindex $rest 0]] ne ".xsa"} {
        error "ERROR: \[Common 17-69\] [lindex $rest 0] is no .xsa"
    }
    close [open [lindex $rest 0] w]
}

# The program that turns a bitstream into what the FPGA manager takes (UG1283).
rename exec vivado_exec
vivado::command exec {-ignorestderr} {-arch -image -process_bitstream -w} 1 1 {
    if {$rest ne "bootgen" || [dict get $opt -arch] ne "zynqmp" || [dict get $opt -w] ni {on off}
            || [dict get $opt -process_bitstream] ni {bin mcs}} {
        error "bootgen: wrong arguments: $opt $rest"
    }
    set channel [open [dict get $opt -image]]
    if {![regexp {^all: \{ (\S+\.bit) \}\n$} [read $channel] all bitstream]} {
        error "bootgen: syntax error in [dict get $opt -image]"
    }
    close $channel
    file copy -force $bitstream $bitstream.bin
}
