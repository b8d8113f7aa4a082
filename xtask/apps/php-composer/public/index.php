<?php

require __DIR__ . '/../vendor/autoload.php';

echo (new Sample\Greeting())->text();
