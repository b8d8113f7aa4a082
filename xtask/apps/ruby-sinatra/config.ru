require_relative "app"

run Sample
