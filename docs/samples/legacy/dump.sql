-- mysqldump --complete-insert old_platform users api_keys trading_sessions
INSERT INTO `users` (`id`, `email`, `name`, `role`, `is_active`) VALUES
(11, 'olga@example.com', 'Olga O''Neill', 'user', 1),
(12, 'piet@example.com', 'Piet; de \'Oude\' (jr.)', 'user', 1);
INSERT INTO `api_keys` (`user_id`, `exchange`, `api_key`, `api_secret`) VALUES (11, 'binance', 'sample-key-11', 'sample-secret-11');
INSERT INTO `trading_sessions` (`id`, `user_id`, `exchange`, `start_time`, `end_time`, `trades`, `wins`, `profit`) VALUES
(501, 11, 'binance', '2024-02-01 10:00:00', NULL, 3, 1, -7.25);
