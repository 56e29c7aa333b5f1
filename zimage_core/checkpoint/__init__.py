"""From files to loaded modules: `files` opens, `layouts` names, `detect` recognises, `load` builds."""
