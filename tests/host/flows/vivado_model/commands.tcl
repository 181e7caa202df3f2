# A model of Vivado's batch mode, as far as the project's scripts go: commands with the options that
# UG835 and UG1118 name, objects with the properties that UG912 and the IP's guides name. What is
# not known is an error, as it would be there. The environment plants situations: see project.tcl.

namespace eval vivado {
    variable properties     ;# by object: a dictionary
    array set properties {}
    variable kinds          ;# by kind: property names with patterns of their values
    array set kinds {}
}
namespace eval ipx {}

# Define a command: its options without a value, those with one, the least and most arguments. The
# body sees `opt`, a dictionary of the options that were given, and `rest`.
proc vivado::command {name flags valued least most body} {
    set inner [string map {:: _} $name]
    proc ::vivado::do_$inner {opt rest} $body
    proc ::$name args "vivado::call $name [list $flags $valued $least $most] ::vivado::do_$inner \$args"
}

proc vivado::call {name flags valued least most body arguments} {
    set opt {}
    set rest {}
    lappend flags -quiet -verbose
    while {$arguments ne ""} {
        set arguments [lassign $arguments word]
        if {![regexp {^-[a-zA-Z_]+$} $word]} {
            lappend rest $word
        } elseif {$word in $flags} {
            dict set opt $word 1
        } elseif {$word in $valued} {
            if {$arguments eq ""} {
                error "ERROR: \[Common 17-157\] $name: $word needs a value"
            }
            set arguments [lassign $arguments value]
            dict set opt $word $value
        } else {
            error "ERROR: \[Common 17-170\] Unknown option '$word', please type '$name -help'"
        }
    }
    if {[llength $rest] < $least || [llength $rest] > $most} {
        error "ERROR: \[Common 17-163\] $name takes $least to $most arguments, got: $rest"
    }
    if {[catch {$body $opt $rest} result]} {
        if {[dict exists $opt -quiet]} {
            return ""
        }
        error $result
    }
    return $result
}

proc vivado::kind {name patterns} {
    variable kinds
    set kinds($name) $patterns
}

# Objects are `kind@name`. `values` are their properties so far.
proc vivado::create {kind name {values {}}} {
    variable properties
    set properties($kind@$name) $values
    return $kind@$name
}

proc vivado::exists {object} {
    variable properties
    return [info exists properties($object)]
}

proc vivado::name {object} {
    return [string range $object [string first @ $object]+1 end]
}

proc vivado::need {kind object} {
    if {![string match $kind@* $object] || ![exists $object]} {
        error "ERROR: \[Common 17-161\] '$object' is no object of kind $kind"
    }
    return $object
}

# The property's name as it is defined. IP parameters are told by case, the others not.
proc vivado::property {object name} {
    variable kinds
    if {![exists $object]} {
        error "ERROR: \[Common 17-55\] no object '$object'"
    }
    foreach known [dict keys $kinds([kind_of $object])] {
        if {$known eq $name || (![string match CONFIG.* $known] && [string equal -nocase $known $name])} {
            return $known
        }
    }
    error "ERROR: \[Common 17-54\] [kind_of $object] '[name $object]' has no property '$name'"
}

proc vivado::kind_of {object} {
    return [string range $object 0 [string first @ $object]-1]
}

proc vivado::assign {name value object} {
    variable kinds
    variable properties
    set name [property $object $name]
    set pattern [dict get $kinds([kind_of $object]) $name]
    if {$pattern eq "read-only"} {
        error "ERROR: \[Common 17-107\] property '$name' is read-only"
    }
    if {![regexp "^($pattern)\$" $value]} {
        error "ERROR: \[Common 17-69\] value '$value' of '$name' is not in range ($pattern)"
    }
    dict set properties($object) $name $value
}

proc vivado::value {object name {default ""}} {
    variable properties
    if {[dict exists $properties($object) $name]} {
        return [dict get $properties($object) $name]
    }
    return $default
}

proc vivado::matching {kind pattern} {
    variable properties
    return [lsort [array names properties $kind@$pattern]]
}

# What a query finds; nothing found is a warning there, and an empty list.
proc vivado::found {objects opt what} {
    if {$objects eq "" && ![dict exists $opt -quiet]} {
        puts "WARNING: \[Vivado 12-180\] no objects matched '$what'"
    }
    return $objects
}

vivado::command set_property {} {-dict} 1 9 {
    if {[dict exists $opt -dict]} {
        set pairs [dict get $opt -dict]
        set objects $rest
    } else {
        set pairs [lrange $rest 0 1]
        set objects [lrange $rest 2 end]
    }
    if {[llength $pairs] % 2 || $pairs eq "" || [join $objects] eq ""} {
        error "ERROR: \[Common 17-163\] set_property: a property, a value and objects are needed"
    }
    foreach object [join $objects] {
        dict for {name value} $pairs {
            vivado::assign $name $value $object
        }
    }
}

vivado::command get_property {-min -max} {} 2 2 {
    lassign $rest name object
    set name [vivado::property $object $name]
    return [vivado::value $object $name]
}
