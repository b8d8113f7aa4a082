<?php

header("Content-Type: text/plain");
echo "This is the first release\n";
