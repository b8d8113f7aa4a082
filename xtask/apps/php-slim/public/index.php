<?php

require 'Slim/autoload.php';

$app = new \Slim\App();
$app->get('/', function ($request, $response) {
    return $response->write('This is the first release');
});
$app->run();
