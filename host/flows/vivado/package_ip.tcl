# Packages the accelerator as an IP in vivado/ip; build.tcl runs it. Not run on a board so far.
#
# Vivado infers the interfaces from pin names and the X_INTERFACE attributes in the Verilog.

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]

create_project -force -part $part package [file join $here vivado package]
foreach file $verilog {
    add_files -norecurse [file join $here $file]
}
set_property top $top [current_fileset]
update_compile_order -fileset sources_1

ipx::package_project -root_dir [file join $here vivado ip] -vendor terntable -library user \
    -taxonomy /UserIP -import_files -force
set core [ipx::current_core]
set_property name $ip_name $core
set_property version 1.0 $core
set_property display_name "Terntable accelerator, $config_name" $core
set_property description "Table-lookup accelerator of ternary language models ($config_hash)" $core
set_property vendor_display_name Terntable $core
set_property supported_families {zynquplus Production} $core
# The block design knows the clock's exact frequency, the IP does not.
set_property ipi_drc {ignore_freq_hz true} $core

foreach interface [concat s_axi_control $memory_ports] {
    if {[ipx::get_bus_interfaces -quiet $interface -of_objects $core] eq ""} {
        error "interface $interface was not inferred from the pins of $top"
    }
    ipx::associate_bus_interfaces -busif $interface -clock aclk $core
}

# The registers: a page, whatever the packager made of the address pins.
set map [ipx::get_memory_maps -quiet s_axi_control -of_objects $core]
if {$map eq ""} {
    set map [ipx::add_memory_map s_axi_control $core]
    set_property slave_memory_map_ref s_axi_control \
        [ipx::get_bus_interfaces s_axi_control -of_objects $core]
}
set block [ipx::get_address_blocks -quiet -of_objects $map]
if {$block eq ""} {
    set block [ipx::add_address_block reg0 $map]
}
set_property usage register $block
set_property width 32 $block
set_property range 4096 $block

ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
