# From Verilog to firmware/, in batch mode: vivado -mode batch -source build.tcl
# Not run on a board so far.
#
# Any Vivado with support for the part will do. TERNTABLE_JOBS is the number of parallel jobs.

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]
source [file join $here package_ip.tcl]
source [file join $here block_design.tcl]

set jobs 4
if {[info exists env(TERNTABLE_JOBS)]} {
    set jobs $env(TERNTABLE_JOBS)
}
set reports [file join $here vivado reports]
set firmware [file join $here firmware]
file mkdir $reports $firmware

add_files -norecurse [make_wrapper -files [get_files $name.bd] -top]
set_property top ${name}_wrapper [current_fileset]
add_files -fileset constrs_1 -norecurse [file join $here $name.xdc]
update_compile_order -fileset sources_1
set_property strategy Performance_ExplorePostRoutePhysOpt [get_runs impl_1]

launch_runs impl_1 -to_step write_bitstream -jobs $jobs
wait_on_run impl_1
set progress [get_property PROGRESS [get_runs impl_1]]
set status [get_property STATUS [get_runs impl_1]]
if {$progress ne "100%"} {
    error "implementation ended at $progress: $status"
}
open_run impl_1
report_utilization -hierarchical -file [file join $reports utilization.txt]
report_timing_summary -max_paths 10 -file [file join $reports timing.txt]
report_power -file [file join $reports power.txt]

# A bitstream that misses timing computes nonsense: it does not reach firmware/.
foreach {slack what} {STATS.WNS setup STATS.WHS hold} {
    set value [get_property $slack [get_runs impl_1]]
    if {$value < 0} {
        error "timing is not met: $what slack $value ns at $clock_mhz MHz, see $reports/timing.txt;\
            lower clock_hz in the configuration or try another strategy"
    }
}

# The FPGA manager takes the bitstream without its header, words swapped: bootgen makes that.
set bitstream [file join $here vivado $name.bit]
file copy -force [file join [get_property DIRECTORY [get_runs impl_1]] ${name}_wrapper.bit] $bitstream
write_hw_platform -fixed -include_bit -force [file join $here vivado $name.xsa]
set bif [open [file join $here vivado $name.bif] w]
puts $bif "all: { $bitstream }"
close $bif
exec -ignorestderr bootgen -arch zynqmp -image [file join $here vivado $name.bif] -process_bitstream bin -w on
file copy -force $bitstream.bin [file join $firmware $name.bit.bin]
foreach file {shell.json load.sh} {
    file copy -force [file join $here $file] [file join $firmware $file]
}
puts "$firmware is ready but for the overlay: see README.md"
